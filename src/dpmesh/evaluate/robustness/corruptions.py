"""Corruptions of a person's inputs. Severities are nested: each includes the effects of the milder ones.

Each person has one random joint order, one set of offsets, one occluder place and one noise pattern, shared by all
severities: the joints dropped at 20 % are among those dropped at 40 %.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from dpmesh.errors import ConfigError
from dpmesh.evaluate.interfaces import Persons
from dpmesh.geometry import CROP
from dpmesh.skeletons import JOINTS30

_FLIP = np.array(JOINTS30.flip)
_SIDED = np.array([a != b for a, b in enumerate(JOINTS30.flip)])


@dataclass(frozen=True)
class Corruption:
    """severities: ascending; the first has no effect. unit: of the severities. apply(persons, severity, seeds): seeds,
    one for each person, determine everything random."""

    name: str
    title: str
    unit: str
    severities: tuple[float, ...]
    apply: Callable[[Persons, float, NDArray[np.int64]], Persons]

    def __post_init__(self) -> None:
        if list(self.severities) != sorted(set(self.severities)):
            raise ConfigError("severities must ascend", where=self.name)


def _rng(seed: int | np.int64, salt: int) -> np.random.Generator:
    return np.random.default_rng([int(seed), salt])


def _shares(persons: Persons, seeds: NDArray[np.int64], salt: int) -> Float[np.ndarray, "b 30"]:
    """A random rank in (0, 1] for each visible joint of a person; inf for the others. A severity of 40 % affects ranks
    up to 0.4."""
    out = np.full(persons.visible.shape, np.inf)
    for row, seed in enumerate(seeds):
        visible = np.flatnonzero(persons.visible[row] > 0)
        out[row, visible] = (_rng(seed, salt).permutation(len(visible)) + 0.5) / max(len(visible), 1)
    return out


def _with_joints(persons: Persons, joints: np.ndarray, visible: np.ndarray) -> Persons:
    """People with other input keypoints. Joints outside the crop, where no detector reports any, become invisible."""
    inside = ((joints >= 0) & (joints < CROP)).all(-1)
    kept = (visible > 0) & inside
    return replace(
        persons,
        joints=np.where(kept[..., None], joints, 0).astype(np.float32),
        visible=kept.astype(np.float32),
    )


def _drop(persons: Persons, share: float, seeds: NDArray[np.int64]) -> Persons:
    dropped = _shares(persons, seeds, 1) <= share
    return _with_joints(persons, persons.joints, np.where(dropped, 0, persons.visible))


def _jitter(persons: Persons, pixels: float, seeds: NDArray[np.int64]) -> Persons:
    offset = np.stack([_rng(seed, 2).standard_normal((30, 2)) for seed in seeds])
    return _with_joints(persons, persons.joints + pixels * offset, persons.visible)


def _swap_sides(persons: Persons, share: float, seeds: NDArray[np.int64]) -> Persons:
    """Swap left and right joints of that share of the pairs, in random order."""
    rank = np.stack([_rng(seed, 3).random(30) for seed in seeds])
    rank = np.minimum(rank, rank[:, _FLIP])
    chosen = _SIDED & (_pair_rank(rank) <= share)
    joints = np.where(chosen[..., None], persons.joints[:, _FLIP], persons.joints)
    return _with_joints(persons, joints, np.where(chosen, persons.visible[:, _FLIP], persons.visible))


def _pair_rank(rank: Float[np.ndarray, "b 30"]) -> Float[np.ndarray, "b 30"]:
    """Shares (0, 1] in the order of `rank`, equal for both joints of a pair; joints without a side come last."""
    ordered = np.where(_SIDED, rank, np.inf)
    below = (ordered[:, None, :] < ordered[:, :, None]).sum(-1)  # two for every pair before
    return (below / 2 + 0.5) / (_SIDED.sum() / 2)


def _swap_neighbour(persons: Persons, share: float, seeds: NDArray[np.int64]) -> Persons:
    """Replace joints by a simulated neighbour's: the same person mirrored and shifted by a body's width."""
    chosen = _shares(persons, seeds, 4) <= share
    side = np.array([_rng(seed, 5).choice([-1.0, 1.0]) for seed in seeds])[:, None]
    middle = _mean(persons.joints[..., 0], persons.visible)[:, None]
    width = 0.25 * CROP
    other = persons.joints.copy()[:, _FLIP]
    other[..., 0] = 2 * middle - other[..., 0] + side * width
    joints = np.where((chosen & (persons.visible[:, _FLIP] > 0))[..., None], other, persons.joints)
    return _with_joints(persons, joints, persons.visible)


def _mean(values: np.ndarray, weights: np.ndarray) -> Float[np.ndarray, " b"]:
    return (values * weights).sum(1) / np.maximum(weights.sum(1), 1)


def cover(persons: Persons, boxes: Float[np.ndarray, "b 4"], *, hide_keypoints: bool = True) -> Persons:
    """A grey box over each crop (x1 y1 x2 y2 px). With `hide_keypoints` the keypoints under it become invisible."""
    crops = persons.crops.copy()
    for crop, box in zip(crops, boxes, strict=True):
        x1, y1, x2, y2 = np.clip(np.rint(box), 0, CROP).astype(int)
        crop[y1:y2, x1:x2] = 128
    under = ((persons.joints >= boxes[:, None, :2]) & (persons.joints < boxes[:, None, 2:])).all(-1)
    visible = np.where(under, 0, persons.visible) if hide_keypoints else persons.visible
    return _with_joints(replace(persons, crops=crops), persons.joints, visible)


def _occlude(persons: Persons, share: float, seeds: NDArray[np.int64]) -> Persons:
    """A square of that share of the crop's side, centred on a visible joint (on the crop if there is none)."""
    centres = np.full((len(seeds), 2), CROP / 2)
    for row, seed in enumerate(seeds):
        visible = np.flatnonzero(persons.visible[row] > 0)
        if len(visible):
            centres[row] = persons.joints[row, visible[_rng(seed, 6).integers(len(visible))]]
    half = share * CROP / 2
    return cover(persons, np.concatenate([centres - half, centres + half], 1)) if share > 0 else persons


def _shift(persons: Persons, share: float, seeds: NDArray[np.int64]) -> Persons:
    """Move the window by that share of its side, in a random direction."""
    angle = np.array([_rng(seed, 7).uniform(0, 2 * np.pi) for seed in seeds])
    off = share * CROP * np.stack([np.cos(angle), np.sin(angle)], 1)
    return _window(persons, 1.0, off)


def _zoom(persons: Persons, log2: float, seeds: NDArray[np.int64]) -> Persons:
    """Enlarge the window by a factor of 2^log2."""
    del seeds
    return _window(persons, 2.0**-log2, np.zeros((len(persons.crops), 2)))


def _window(persons: Persons, scale: float, off: Float[np.ndarray, "b 2"]) -> Persons:
    """Scale the crop about its centre, then move it (px). The focal length follows the scale. The rotation of the
    crop's camera is not corrected: that is the corruption."""
    edge = CROP / 2 * (1 - scale)
    moves = [np.array([[scale, 0, edge + dx], [0, scale, edge + dy]]) for dx, dy in off]
    pairs = zip(persons.crops, moves, strict=True)
    crops = np.stack(
        [cv2.warpAffine(crop, move, (CROP, CROP), flags=cv2.INTER_LINEAR) for crop, move in pairs]
    )
    joints = (persons.joints - CROP / 2) * scale + CROP / 2 + off[:, None]
    moved = replace(
        persons, crops=crops.astype(np.uint8), focal_crop=(persons.focal_crop * scale).astype(np.float32)
    )
    return _with_joints(moved, joints, persons.visible)


Change = Callable[[UInt8[np.ndarray, "h w 3"], float, int], np.ndarray]


def _on_images(change: Change) -> Callable[[Persons, float, NDArray[np.int64]], Persons]:
    def apply(persons: Persons, severity: float, seeds: NDArray[np.int64]) -> Persons:
        if severity == 0:
            return persons
        crops = [change(crop, severity, int(seed)) for crop, seed in zip(persons.crops, seeds, strict=True)]
        return replace(persons, crops=np.stack(crops).astype(np.uint8))

    return apply


def _blur(crop: UInt8[np.ndarray, "h w 3"], sigma: float, seed: int) -> np.ndarray:
    del seed
    return cv2.GaussianBlur(crop, (0, 0), sigma)


def _noise(crop: UInt8[np.ndarray, "h w 3"], levels: float, seed: int) -> np.ndarray:
    grain = _rng(seed, 8).standard_normal(crop.shape)
    return np.clip(np.rint(crop + levels * grain), 0, 255)


def _jpeg(crop: UInt8[np.ndarray, "h w 3"], lost: float, seed: int) -> np.ndarray:
    """lost: 100 minus the quality."""
    del seed
    _, file = cv2.imencode(".jpg", crop[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, round(100 - lost)])
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR))[..., ::-1]


CORRUPTIONS = (
    Corruption("dropped", "keypoints dropped", "share of the given", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), _drop),
    Corruption(
        "jittered", "keypoints jittered", "px, one sigma, each axis", (0.0, 4.0, 8.0, 16.0, 32.0), _jitter
    ),
    Corruption(
        "sides", "keypoints swapped left-right", "share of the pairs", (0.0, 0.25, 0.5, 1.0), _swap_sides
    ),
    Corruption(
        "neighbour",
        "keypoints of a neighbour",
        "share of the given",
        (0.0, 0.2, 0.4, 0.6, 0.8),
        _swap_neighbour,
    ),
    Corruption(
        "occluder", "occluder at a joint", "share of the crop's side", (0.0, 0.15, 0.3, 0.45, 0.6), _occlude
    ),
    Corruption("shift", "crop moved", "share of its side", (0.0, 0.05, 0.1, 0.2, 0.3), _shift),
    Corruption("larger", "crop too large", "log2 of the factor", (0.0, 0.25, 0.5, 1.0), _zoom),
    Corruption("blur", "picture blurred", "px, one sigma", (0.0, 1.0, 2.0, 4.0, 8.0), _on_images(_blur)),
    Corruption(
        "noise", "picture noisy", "grey levels, one sigma", (0.0, 8.0, 16.0, 32.0, 64.0), _on_images(_noise)
    ),
    Corruption("jpeg", "JPEG", "100 − quality", (0.0, 50.0, 75.0, 90.0, 97.0), _on_images(_jpeg)),
)
