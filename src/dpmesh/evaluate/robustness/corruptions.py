"""Corruptions of a person's inputs, nested by construction: a severity does all that the milder ones do, and more.

One random order of the joints, one set of offsets, one place and one grain of noise belongs to a person and serves all
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
    """severities: ascending; the first does nothing. unit: of them. apply(persons, severity, seeds): seeds, one for
    each person, fix everything that is random."""

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
    """A rank in (0, 1] for every given joint of a person, at random; inf for joints that are not given. A severity of
    40 % takes those up to 0.4."""
    out = np.full(persons.visible.shape, np.inf)
    for row, seed in enumerate(seeds):
        given = np.flatnonzero(persons.visible[row] > 0)
        out[row, given] = (_rng(seed, salt).permutation(len(given)) + 0.5) / max(len(given), 1)
    return out


def _told(persons: Persons, joints: np.ndarray, visible: np.ndarray) -> Persons:
    """Joints pushed out of the crop are not given: no detector looks there."""
    inside = ((joints >= 0) & (joints < CROP)).all(-1)
    seen = (visible > 0) & inside
    return replace(
        persons,
        joints=np.where(seen[..., None], joints, 0).astype(np.float32),
        visible=seen.astype(np.float32),
    )


def _drop(persons: Persons, share: float, seeds: NDArray[np.int64]) -> Persons:
    gone = _shares(persons, seeds, 1) <= share
    return _told(persons, persons.joints, np.where(gone, 0, persons.visible))


def _jitter(persons: Persons, pixels: float, seeds: NDArray[np.int64]) -> Persons:
    offset = np.stack([_rng(seed, 2).standard_normal((30, 2)) for seed in seeds])
    return _told(persons, persons.joints + pixels * offset, persons.visible)


def _swap_sides(persons: Persons, share: float, seeds: NDArray[np.int64]) -> Persons:
    """Left for right: both of a pair, the pairs in a random order."""
    rank = np.stack([_rng(seed, 3).random(30) for seed in seeds])
    rank = np.minimum(rank, rank[:, _FLIP])
    chosen = _SIDED & (_pair_rank(rank) <= share)
    joints = np.where(chosen[..., None], persons.joints[:, _FLIP], persons.joints)
    return _told(persons, joints, np.where(chosen, persons.visible[:, _FLIP], persons.visible))


def _pair_rank(rank: Float[np.ndarray, "b 30"]) -> Float[np.ndarray, "b 30"]:
    """Shares (0, 1] in the order of `rank`, the same for both of a pair; joints without a side last."""
    ordered = np.where(_SIDED, rank, np.inf)
    below = (ordered[:, None, :] < ordered[:, :, None]).sum(-1)  # two for every pair before
    return (below / 2 + 0.5) / (_SIDED.sum() / 2)


def _swap_neighbour(persons: Persons, share: float, seeds: NDArray[np.int64]) -> Persons:
    """Joints taken from another person: the same person's, mirrored and moved aside by the width of a body."""
    chosen = _shares(persons, seeds, 4) <= share
    side = np.array([_rng(seed, 5).choice([-1.0, 1.0]) for seed in seeds])[:, None]
    middle = _mean(persons.joints[..., 0], persons.visible)[:, None]
    width = 0.25 * CROP
    other = persons.joints.copy()[:, _FLIP]
    other[..., 0] = 2 * middle - other[..., 0] + side * width
    joints = np.where((chosen & (persons.visible[:, _FLIP] > 0))[..., None], other, persons.joints)
    return _told(persons, joints, persons.visible)


def _mean(values: np.ndarray, weights: np.ndarray) -> Float[np.ndarray, " b"]:
    return (values * weights).sum(1) / np.maximum(weights.sum(1), 1)


def cover(persons: Persons, boxes: Float[np.ndarray, "b 4"], *, hide_keypoints: bool = True) -> Persons:
    """A grey box over each crop (x1 y1 x2 y2 px); the keypoints under it are not given."""
    crops = persons.crops.copy()
    for crop, box in zip(crops, boxes, strict=True):
        x1, y1, x2, y2 = np.clip(np.rint(box), 0, CROP).astype(int)
        crop[y1:y2, x1:x2] = 128
    under = ((persons.joints >= boxes[:, None, :2]) & (persons.joints < boxes[:, None, 2:])).all(-1)
    visible = np.where(under, 0, persons.visible) if hide_keypoints else persons.visible
    return _told(replace(persons, crops=crops), persons.joints, visible)


def _occlude(persons: Persons, share: float, seeds: NDArray[np.int64]) -> Persons:
    """A square of that share of the crop's side, about a given joint of the person (the middle where none is)."""
    centres = np.full((len(seeds), 2), CROP / 2)
    for row, seed in enumerate(seeds):
        given = np.flatnonzero(persons.visible[row] > 0)
        if len(given):
            centres[row] = persons.joints[row, given[_rng(seed, 6).integers(len(given))]]
    half = share * CROP / 2
    return cover(persons, np.concatenate([centres - half, centres + half], 1)) if share > 0 else persons


def _shift(persons: Persons, share: float, seeds: NDArray[np.int64]) -> Persons:
    """The window is moved by that share of its side, in a random direction."""
    angle = np.array([_rng(seed, 7).uniform(0, 2 * np.pi) for seed in seeds])
    off = share * CROP * np.stack([np.cos(angle), np.sin(angle)], 1)
    return _window(persons, 1.0, off)


def _zoom(persons: Persons, log2: float, seeds: NDArray[np.int64]) -> Persons:
    """The window is larger by 2^log2."""
    del seeds
    return _window(persons, 2.0**-log2, np.zeros((len(persons.crops), 2)))


def _window(persons: Persons, scale: float, off: Float[np.ndarray, "b 2"]) -> Persons:
    """Scaled about the middle, then moved (px). The focal length follows the scale. What a move turns the crop's
    camera by is not corrected for: this is the error."""
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
    return _told(moved, joints, persons.visible)


Change = Callable[[UInt8[np.ndarray, "h w 3"], float, int], np.ndarray]


def _pictures(change: Change) -> Callable[[Persons, float, NDArray[np.int64]], Persons]:
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
    """lost: 100 less the quality."""
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
    Corruption("blur", "picture blurred", "px, one sigma", (0.0, 1.0, 2.0, 4.0, 8.0), _pictures(_blur)),
    Corruption(
        "noise", "picture noisy", "grey levels, one sigma", (0.0, 8.0, 16.0, 32.0, 64.0), _pictures(_noise)
    ),
    Corruption("jpeg", "JPEG", "100 − quality", (0.0, 50.0, 75.0, 90.0, 97.0), _pictures(_jpeg)),
)
