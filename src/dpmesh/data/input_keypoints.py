"""Input keypoints of a person: the ground truth with PoseFix errors, or a real detector's.

The loaders of 3DCrowdNet, JOTR and DPMesh have four defects here, which are fixed
unless `as_published`:

1. neighbours are not mirrored when the person is;
2. every joint of a neighbour counts as labelled; those that are not lie at the image's origin;
3. joints are disturbed in order and in place, so a right joint meets its left partner where noise put it;
4. which joints are visible is decided by the true positions, not by the noisy ones.

A fifth: where the pelvis is the middle of the hips it stays that of the true hips. Here it follows.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from dpmesh.data.annotation import COCO_IN_30, Annotation, Array32
from dpmesh.data.augment import AugmentConfig, View
from dpmesh.data.noise import posefix
from dpmesh.geometry import CROP
from dpmesh.skeletons import COCO17, JOINTS30

_HIPS = [JOINTS30.index("L_Hip"), JOINTS30.index("R_Hip")]
_F32 = np.float32


def detect(
    rng: np.random.Generator,
    person: Annotation,
    view: View,
    joints2d: Float32[Array32, "30 2"],
    valid: Float32[Array32, "30"],
    config: AugmentConfig,
) -> tuple[Float32[Array32, "30 2"], Float32[Array32, "30"]]:
    """Input joints (crop px) and which of them are visible; the others are (0, 0).

    joints2d, valid: the true ones in the crop, left and right exchanged where the view is mirrored.
    """
    if not config.noise:
        points, visible = joints2d, valid * inside(joints2d)
    elif len(person.detected):
        detected = view.swap(person.detected, JOINTS30)
        points = view.pixels(detected[:, :2])
        visible = (detected[:, 2] > 0) * inside(points)
    else:
        points, visible = _disturbed(rng, person, view, joints2d, valid, config.as_published)
    visible = (visible * (rng.random(30) >= config.p_drop_joint)).astype(_F32)
    return np.where(visible[:, None] > 0, points, 0).astype(_F32), visible


def inside(points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which points (..., 2) lie in the crop."""
    return np.asarray(((points >= 0) & (points < CROP)).all(-1))


def _disturbed(
    rng: np.random.Generator,
    person: Annotation,
    view: View,
    joints2d: Float32[Array32, "30 2"],
    valid: Float32[Array32, "30"],
    as_published: bool,
) -> tuple[Array32, NDArray[np.floating]]:
    others, flags = person.neighbours, person.neighbour_flags
    if as_published:
        others, flags = _unmirrored(view, others, person.size[0]), np.ones_like(flags)
    else:
        others = view.pixels(others)
        if view.flip:
            order = list(COCO17.flip)
            others, flags = others[:, order], flags[:, order]
    labelled = valid[COCO_IN_30]
    noisy = posefix(
        rng,
        joints2d[None, COCO_IN_30],
        labelled[None],
        np.array([tight_area(person, view)]),
        others[None],
        flags[None],
        in_place=as_published,
    )
    points = joints2d.copy()
    # A joint that the set does not label stays unseen; the original noise would invent one.
    rows = COCO_IN_30[labelled > 0]
    points[rows] = noisy.points[0, labelled > 0]
    if as_published:
        return points, valid * inside(joints2d)
    visible = valid.copy()
    visible[rows] = noisy.flags[0, labelled > 0]
    if person.middle_pelvis:
        points[0], visible[0] = points[_HIPS].mean(0), visible[_HIPS].prod()
    return points, visible * inside(points)


def _unmirrored(view: View, points: Float32[Array32, "k 17 2"], width: int) -> Float32[Array32, "k 17 2"]:
    """Neighbours as the original loaders map them: not mirrored, but by the map that fits the mirrored image.

    Of that image the window's middle is W - 1 - m; from it they measure.
    """
    if not view.flip:
        return view.pixels(points)
    middle = view.crop.x1 + view.crop.side / 2
    off = np.asarray(points[..., 0]) - (width - 1 - middle)
    return view.pixels(np.stack([middle - off, points[..., 1]], -1))  # view.pixels mirrors once more


def tight_area(person: Annotation, view: View) -> float:
    """Area of the annotated box, crop px²; turning does not change it."""
    return float(np.prod(person.annotated[2:] - person.annotated[:2])) * view.crop.scale**2
