"""The pinhole camera of the full image, the camera of a crop, and the transform between the two.

Frames as in docs/reference/conventions.md: camera frame metres, x right, y down, z forward; K in full-image pixels.

The crop camera. A crop is centred on m, off the principal point c. The ray through m is d = ((m - c) / f, 1); the
crop camera has the position of the image's camera and its axis along d. The crop is cut out by an affine map (no
perspective warp), so the crop camera's image equals the crop only to first order around the middle. There, at the
angle t off the axis (tan t = |m - c| / f), a small angle covers f / cos^2 t pixels of the image radially and f / cos t
across. Their geometric mean preserves areas: the crop camera's focal length is f / cos^1.5 t = f (1 + tan^2 t)^(3/4) in
image pixels, times 256 / side in crop pixels.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from dpmesh.errors import InputError
from dpmesh.geometry.crop import Crop


def _float64(values: object) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def intrinsics(focal: float, size: tuple[int, int]) -> Float[np.ndarray, "3 3"]:
    """K (3, 3) of an image of `size` (h, w) with square pixels and a central principal point. focal: pixels."""
    height, width = size
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def project(points: Float[np.ndarray, "*n 3"], K: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "*n 2"]:
    """Camera-frame points (..., 3) in metres to image pixels (..., 2), in float64.

    Points behind the camera (z <= 0) are not on the image: they become inf or mirrored.
    """
    camera = _float64(K)
    uvw = _float64(np.einsum("...j,ij->...i", _float64(points), camera))
    with np.errstate(divide="ignore", invalid="ignore"):
        return uvw[..., :2] / uvw[..., 2:]


def checked_camera(K: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """K in float64; raises InputError unless it is finite, with positive focal lengths and the last row 0 0 1."""
    camera = _float64(K)
    if not np.isfinite(camera).all() or camera[1, 0] or (camera[2] != (0, 0, 1)).any():
        raise InputError("it must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with finite numbers", where="K")
    if min(camera[0, 0], camera[1, 1]) <= 0:
        raise InputError("the focal lengths must be positive", where="K")
    return camera


def _ray(K: Float[np.ndarray, "3 3"], crop: Crop) -> Float[np.ndarray, "3"]:
    """Direction (3,), z = 1, through the middle of the crop. Raises InputError where it is not finite or too steep."""
    middle = np.array([crop.x1 + crop.side / 2, crop.y1 + crop.side / 2, 1.0])
    with np.errstate(over="ignore", invalid="ignore"):
        ray = np.linalg.solve(checked_camera(K), middle)
    if not np.abs(ray).max() < _STEEPEST:  # nor NaN
        raise InputError(
            "the crop is too far outside of the camera's view", where=f"crop at {middle[0]:g} {middle[1]:g}"
        )
    return ray


_STEEPEST = 1e6
"""Bound of a ray's x and y at z = 1: 89.9999 degrees off the axis."""
_FOCALS = (1e-6, 1e12)
"""Bounds of the focal length in crop pixels; beyond them float32 is too coarse for a body."""


def crop_focal(K: Float[np.ndarray, "3 3"], crop: Crop) -> float:
    """Focal length of the crop camera in crop pixels (derivation in the module's docstring).

    Raises InputError for an invalid K, and for a crop that is too small, too large or too far outside for it.
    """
    ray = _ray(K, crop)
    tan2 = float(ray[0] ** 2 + ray[1] ** 2)
    focal = float(np.sqrt(K[0, 0]) * np.sqrt(K[1, 1])) * (1.0 + tan2) ** 0.75 * crop.SIZE / crop.side
    if not _FOCALS[0] <= focal <= _FOCALS[1]:
        raise InputError(f"a crop of {crop.side:g} px does not fit this focal length", where="K")
    return focal


def crop_rotation(K: Float[np.ndarray, "3 3"], crop: Crop) -> Float[np.ndarray, "3 3"]:
    """Rotation (3, 3) from the crop camera's frame to the camera frame: the smallest that maps z to the ray, after
    the crop's roll about z.

    Without roll "up" in the crop is "up" in the image. Raises InputError as crop_focal.
    """
    ray = _ray(K, crop)
    turn = _rotation_to(ray / np.linalg.norm(ray))
    if not crop.roll:
        return turn
    t = np.deg2rad(crop.roll)
    return turn @ np.array([[np.cos(t), -np.sin(t), 0], [np.sin(t), np.cos(t), 0], [0, 0, 1]])


def rotation_by_roll(turn: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """The part of a crop's rotation (`crop_rotation`) that is its roll: about the crop camera's axis, in the camera
    frame."""
    return turn @ _rotation_to(turn[:, 2]).T


def _rotation_to(axis: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Rodrigues for the smallest rotation (0, 0, 1) -> axis, of length 1; z > 0, so 1 + z never vanishes."""
    x, y, z = axis
    a = 1.0 / (1.0 + z)
    return np.array([[1 - a * x * x, -a * x * y, x], [-a * x * y, 1 - a * y * y, y], [-x, -y, z]])


def solve_translation(
    points3d: Float[np.ndarray, "n 3"],
    points2d: Float[np.ndarray, "n 2"],
    K: Float[np.ndarray, "3 3"],
    weights: Float[np.ndarray, "n"],
) -> Float[np.ndarray, "3"]:
    """Translation t (3,) in metres such that points3d + t projects to points2d (image pixels): weighted least squares.

    u (Z + tz) = fx (X + tx) + cx (Z + tz) is linear in t, likewise for v; solved by the normal equations.
    Raises InputError for an invalid K, and where the points do not determine t: fewer than two with positive weight,
    all on one pixel or at one point, or a solution behind the camera.
    """
    camera, used = checked_camera(K), weights > 0
    if used.sum() < 2:
        raise InputError("fewer than two points do not determine a translation", where="solve_translation")
    xyz, w = _float64(points3d[used]), _float64(weights[used])
    rays = _float64(points2d[used]) - camera[:2, 2]  # (n, 2) px off the principal point
    rays = rays / np.array([camera[0, 0], camera[1, 1]])
    # Rows: tx - rx tz = rx Z - X, and ty - ry tz = ry Z - Y.
    rows = np.zeros((len(xyz), 2, 3))
    rows[:, 0, 0] = rows[:, 1, 1] = 1.0
    rows[:, :, 2] = -rays
    right = rays * xyz[:, 2:] - xyz[:, :2]
    normal = _float64(np.einsum("n,nij,nik->jk", w, rows, rows) / w.sum())
    if not np.isfinite(normal).all() or np.linalg.cond(normal) > 1e12:
        raise InputError(
            "the points lie on one pixel and do not determine a distance", where="solve_translation"
        )
    target = _float64(np.einsum("n,nij,ni->j", w, rows, right) / w.sum())
    t = np.linalg.solve(normal, target)
    if not np.isfinite(t).all() or (xyz[:, 2] + t[2]).min() <= 0:
        raise InputError("the points lie behind the camera", where="solve_translation")
    return t
