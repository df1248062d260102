"""From an annotation and an image to a training sample, through one View (augment.py)."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

import numpy as np
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray

from dpmesh.data.annotation import Annotation, Array32
from dpmesh.data.augment import AugmentConfig, View, draw_view
from dpmesh.data.input_keypoints import detect, inside
from dpmesh.data.occlusion import cover, recolour
from dpmesh.data.sample import Sample
from dpmesh.skeletons import JOINTS30, SMPL24

MOST_BETA = 3.0
"""A fit with a larger beta teaches the mean shape instead; its joints still count."""

_F32 = np.float32


def make_sample(
    rng: np.random.Generator,
    person: Annotation,
    image: UInt8[np.ndarray, "h w 3"],
    augment: AugmentConfig | None = None,
) -> Sample:
    """The person's sample; augment None: the image as it is (box times 1.1) with the true joints as input."""
    config = augment or AugmentConfig.still(noise=False)
    K = person.diagonal_camera if config.focal == "diagonal" else person.K
    view = draw_view(rng, config, person.box, K)
    crop = view.image(image)
    corners = view.pixels(person.box.reshape(2, 2))  # of a turned box: the rectangle needs no more
    covered = cover(rng, crop, np.concatenate([corners.min(0), corners.max(0)]), config)
    crop = recolour(rng, crop, config.colour)

    joints2d, valid = _joints2d(person, view)
    joints, visible = detect(rng, person, view, joints2d, valid, config)
    hidden = _hidden(joints2d, covered)
    if config.p_drop_covered:
        visible = visible * ~(hidden & (rng.random(30) < config.p_drop_covered))
        joints = joints * visible[:, None]
    clear = view.swap(person.joint_clear, JOINTS30) * valid * inside(joints2d) * _in_image(person, view)
    measured = view.swap(person.joints3d_valid, JOINTS30)
    fit_joints3d = view.swap(view.places(person.fit_joints3d), JOINTS30) * np.float32(person.fit_valid)
    betas = person.betas if np.abs(person.betas).max() <= MOST_BETA else np.zeros(10, _F32)
    known = view.swap(person.pose_valid, SMPL24)
    return Sample(
        record_id=person.record_id,
        crop=crop,
        joints=joints.astype(_F32),
        visible=visible.astype(_F32),
        focal=view.focal,
        joints2d=joints2d,
        joints2d_valid=valid,
        joints3d=view.swap(view.places(person.joints3d), JOINTS30) * measured[:, None],
        joints3d_valid=measured,
        # Rows of a fit's pose that are not known stay as fitted: the mesh they made is what fit_joints3d are of.
        pose=view.pose(person.pose) if known.any() else np.zeros((24, 3), _F32),
        pose_valid=known,
        betas=betas * _F32(person.betas_valid),
        betas_valid=person.betas_valid,
        transl=view.transl(person.transl, person.rest_root) if person.fit_valid else np.zeros(3, _F32),
        joint_visible=(clear * ~hidden).astype(_F32),
        fit_joints2d=_fit_joints2d(person, view),
        fit_joints3d=fit_joints3d,
        fit_valid=person.fit_valid,
        parts=np.zeros((32, 32), np.uint8),
        surface=np.zeros((32, 32), _F32),
        surface_valid=0.0,
        has_image=True,
        diagonal=person.diagonal,
        to_image=view.to_image_camera.astype(_F32),
    )


def _joints2d(person: Annotation, view: View) -> tuple[Array32, Array32]:
    """Annotated joints in the crop (zeros where there is none) and their mask."""
    valid = view.swap(person.joints2d_valid, JOINTS30)
    return view.swap(view.pixels(person.joints2d), JOINTS30) * valid[:, None], valid


def _fit_joints2d(person: Annotation, view: View) -> Array32:
    """The fit's joints projected by the image's own camera, in the crop; zeros without a fit."""
    if not person.fit_valid:
        return np.zeros((30, 2), _F32)
    projected = np.asarray(person.fit_joints3d, np.float64) @ person.K.T
    pixels = projected[:, :2] / np.maximum(projected[:, 2:], 1e-6)
    return view.swap(view.pixels(pixels), JOINTS30)


def _in_image(person: Annotation, view: View) -> NDArray[np.bool_]:
    """Which joints lie inside the stored image."""
    inside_image = np.asarray(
        (person.joints2d >= 0).all(1) & (person.joints2d < np.array(person.size)).all(1)
    )
    return np.asarray(view.swap(inside_image.astype(_F32), JOINTS30) > 0)


def _hidden(joints2d: Array32, covered: Bool[NDArray[np.bool_], "256 256"] | None) -> NDArray[np.bool_]:
    """Which joints lie under what covers the crop."""
    if covered is None:
        return np.zeros(30, bool)
    shown = inside(joints2d)
    x, y = np.where(shown[:, None], joints2d, 0).astype(np.int64).T
    return np.asarray(covered[y, x] & shown)
