"""Augmentation: what is drawn at random, and the one place that maps a person into the crop.

A `View` is a square window of the image, mirrored or not, then turned about its middle. Image, 2D and 3D joints,
pose, translation and camera all go through it, so that they stay one thing:

* pixels: 128 + (256 / side) R(a) F (p - m), with m the middle, F the mirror image, R(a) the turn by a;
* the axis of the crop camera (geometry/camera.py) is the ray through m, so turning the image about m is turning
  the scene about that axis, and mirroring it is mirroring x: X' = R(a) F C' X, C the crop camera's rotation;
* the box's size enters the focal length alone.

Mirroring is about pixel 128, the crop camera's axis (128 + x goes to 128 - x), not about the array's middle at
127.5, or flipped people would be half a pixel off their camera's axis.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation  # pyright: ignore[reportMissingTypeStubs]

from dpmesh.data.annotation import Array32
from dpmesh.data.synthetic.body import matrices
from dpmesh.errors import ConfigError
from dpmesh.geometry import CROP
from dpmesh.geometry.camera import crop_focal, crop_rotation
from dpmesh.geometry.crop import Crop, sample_window
from dpmesh.skeletons import SMPL24, Skeleton

_F32 = np.float32
CENTRE = CROP / 2


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Ranges of the random augmentation; the defaults are those of 3DCrowdNet, JOTR and DPMesh. Every p_ is a
    probability in [0, 1]."""

    expand: tuple[float, ...] = (1.0, 1.2)
    """Range of a factor on the square box, 0.5 to 4."""
    scale: float = 0.25
    """A further factor 1 + scale · clip(N(0, 1), -1, 1), in [0, 1)."""
    rotation: float = 30.0
    """Rotation by rotation · clip(N(0, 1), -2, 2) degrees, 0 to 90."""
    p_rotate: float = 0.6
    """Probability of the rotation."""
    p_flip: float = 0.5
    """Probability of mirroring."""
    colour: float = 0.2
    """Each channel is multiplied by U(1 - colour, 1 + colour), in [0, 1)."""
    p_rectangle: float = 1.0
    """Probability of trying a rectangle of noise over up to 30 % of the box."""
    p_shapes: float = 0.0
    """Probability of one or two textured shapes over the person; 0 in the originals."""
    noise: bool = True
    """PoseFix errors on the input keypoints; false: the ground truth."""
    as_published: bool = False
    """Reproduce the four defects of the original loaders' keypoint noise (data/input_keypoints.py)."""
    p_drop_joint: float = 0.1
    """Probability that an input keypoint is dropped."""
    p_drop_covered: float = 0.0
    """Further probability that one under the rectangle or a shape is dropped."""
    focal: Literal["set", "diagonal"] = "set"
    """The camera by which the crop camera turns and scales: "set", the data set's own K; "diagonal", the image's
    diagonal as focal length and its middle as axis, as in the paper and as assumed for a photo without a camera."""

    def __post_init__(self) -> None:
        for name in ("p_rotate", "p_flip", "p_rectangle", "p_shapes", "p_drop_joint", "p_drop_covered"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)} is not a chance in [0, 1]", where="augment")
        if len(self.expand) != 2 or not 0.5 <= self.expand[0] <= self.expand[1] <= 4:
            raise ConfigError(
                f"expand={self.expand} must be two factors, 0.5 to 4, in order", where="augment"
            )
        for name in ("scale", "colour"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be in [0, 1)", where="augment")
        if not 0 <= self.rotation <= 90:
            raise ConfigError(f"rotation={self.rotation} degrees must be in [0, 90]", where="augment")

    @classmethod
    def still(cls, *, noise: bool = True, focal: Literal["set", "diagonal"] = "set") -> "AugmentConfig":
        """No change of the image (box times 1.1, as at test): for validation. Input joints with noise or true."""
        return cls(
            expand=(1.1, 1.1), scale=0.0, rotation=0.0, p_rotate=0.0, p_flip=0.0, colour=0.0, p_rectangle=0.0,
            noise=noise, p_drop_joint=0.0, focal=focal,
        )  # fmt: skip


@dataclass(frozen=True)
class View:
    """Where the crop lies in an image with camera K (3, 3), whether it is mirrored, and its turn in degrees.

    The turn is from x towards y: clockwise on the screen.
    """

    crop: Crop
    K: Float[np.ndarray, "3 3"]
    flip: bool = False
    rotation: float = 0.0

    @cached_property
    def _turn(self) -> Float64[NDArray[np.float64], "2 2"]:
        a = np.radians(self.rotation)
        turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        return turn * np.array([-1.0 if self.flip else 1.0, 1.0])  # the mirror acts first, on x

    @cached_property
    def _middle(self) -> Float64[NDArray[np.float64], "2"]:
        return np.array([self.crop.x1, self.crop.y1]) + self.crop.side / 2

    @cached_property
    def _turn_in_space(self) -> Float64[NDArray[np.float64], "3 3"]:
        turn = np.eye(3)
        turn[:2, :2] = self._turn
        return turn

    @cached_property
    def space(self) -> Float64[NDArray[np.float64], "3 3"]:
        """From the camera frame to the (mirrored, turned) crop camera's; a reflection where `flip`."""
        return self._turn_in_space @ crop_rotation(self.K, self.crop).T

    @property
    def to_image_camera(self) -> Float64[NDArray[np.float64], "3 3"]:
        """From the (mirrored, turned) crop camera's frame to the equally mirrored and turned frame of the image's
        camera: a rotation."""
        turn = self._turn_in_space
        return turn @ crop_rotation(self.K, self.crop) @ turn.T

    @property
    def focal(self) -> float:
        """Of the crop camera, crop px."""
        return crop_focal(self.K, self.crop)

    def pixels(self, points: Float[np.ndarray, "*n 2"]) -> Float32[Array32, "*n 2"]:
        """Image px to crop px; rows keep their names (see `swap`)."""
        return ((points - self._middle) @ self._turn.T * self.crop.scale + CENTRE).astype(_F32)

    def image(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "256 256 3"]:
        """The image in the crop."""
        to_image = np.linalg.inv(self._turn) / self.crop.scale
        start = self._middle - to_image @ np.full(2, CENTRE)
        return sample_window(image, np.concatenate([to_image, start[:, None]], 1), (CROP, CROP))

    def places(self, points: Float[np.ndarray, "*n 3"]) -> Float32[Array32, "*n 3"]:
        """Metres of the camera frame to metres of the crop camera's; rows keep their names (see `swap`)."""
        return (points @ self.space.T).astype(_F32)

    def swap(self, rows: Float[np.ndarray, "j ..."], joints: Skeleton) -> Float[np.ndarray, "j ..."]:
        """Rows by joint, with left and right exchanged where the image is mirrored."""
        return rows[list(joints.flip)] if self.flip else rows

    def pose(self, pose: Float[np.ndarray, "24 3"]) -> Float32[Array32, "24 3"]:
        """Axis-angle of the mirrored, turned person. A mirrored rotation keeps x and negates y and z."""
        out = np.array(self.swap(pose, SMPL24), np.float64)
        space = self.space
        if self.flip:
            out[:, 1:] *= -1
            space = space @ np.diag([-1.0, 1.0, 1.0])  # the root was mirrored in the line above
        out[0] = Rotation.from_matrix(space @ matrices(out[0])).as_rotvec()
        return out.astype(_F32)

    def transl(
        self, transl: Float[np.ndarray, "3"], rest_root: Float[np.ndarray, "3"]
    ) -> Float32[Array32, "3"]:
        """So that the pelvis (rest_root + transl, about which the root turns) goes where `places` puts it."""
        return (self.space @ (rest_root + transl) - rest_root).astype(_F32)


def draw_view(
    rng: np.random.Generator,
    config: AugmentConfig,
    box: Float64[NDArray[np.float64], "4"],
    K: Float64[NDArray[np.float64], "3 3"],
) -> View:
    """A view of a person's box (x1 y1 x2 y2 px). Always draws the same number of random numbers."""
    expand = float(rng.uniform(config.expand[0], config.expand[1]))
    scale = 1 + config.scale * np.clip(rng.standard_normal(), -1, 1)
    angle = config.rotation * np.clip(rng.standard_normal(), -2, 2)
    turned, flip = rng.random() < config.p_rotate, rng.random() < config.p_flip
    crop = Crop.around(box, float(expand * scale))
    return View(crop, K, bool(flip), float(angle) if turned else 0.0)
