"""Which detection of a frame is which person of the frames before: online tracking by joints, boxes and colours.

Each track predicts its joints by constant velocity; detections are matched to tracks by the Hungarian algorithm on a
similarity of object keypoint similarity (COCO's OKS), box overlap and the colours of torso and legs, first the
confident ones, then the weak ones, for tracks that were just matched (ByteTrack, Zhang et al., ECCV 2022). A track is
shown after `BIRTH` matches, and is kept for `MEMORY` seconds without one, so that a person who was hidden keeps the
number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.optimize import linear_sum_assignment

from dpmesh.skeletons import COCO17, COCO_SIGMAS

BIRTH = 3
"""Matches after which a track is a person."""
MEMORY = 1.5
"""Seconds that a track is kept without a match."""
STRONG = 0.5
"""Detection score from which a detection may begin a track and is matched first."""
WEAKLY = 0.25
"""Seconds since its last match in which a weak detection may continue a track: later it is often part of another
person."""
LEAST = 0.25
"""Similarity below which a detection is not a track's."""
VISIBLE = 0.2
"""Confidence of a keypoint that counts."""
BINS = 6
"""Of each of the two chroma channels of Lab, and of lightness."""
_DECAY = 0.9
"""Of a track's colours at each match."""
_PATCHES = (
    (("L_Shoulder", "R_Shoulder", "L_Hip", "R_Hip"), 0.3),
    (("L_Hip", "L_Knee"), 0.12),
    (("R_Hip", "R_Knee"), 0.12),
)
"""Joints whose middle is the centre of a patch of colour, and its side as a share of the box's height."""


@dataclass(frozen=True, eq=False)
class Observation:
    """A person of one frame. box: x1 y1 x2 y2. joints: COCO-17, x y confidence; px."""

    box: Float[np.ndarray, "4"]
    joints: Float[np.ndarray, "17 3"]
    score: float
    colours: Float[np.ndarray, " c"] | None = None
    """`colours_of` of the frame, None where nothing of the person is visible."""


@dataclass(eq=False)
class Track:
    """A person over time."""

    number: int
    box: Float[np.ndarray, "4"]
    joints: Float[np.ndarray, "17 3"]
    time: float
    colours: Float[np.ndarray, " c"] | None
    matches: int = 1
    velocity: Float[np.ndarray, "2"] = field(default_factory=lambda: np.zeros(2))
    """Of the whole body, px a second."""
    growth: float = 0.0
    """Of the logarithm of the box's height, per second."""

    @property
    def shown(self) -> bool:
        return self.matches >= BIRTH

    def at(self, time: float) -> tuple[Float[np.ndarray, "4"], Float[np.ndarray, "17 3"]]:
        """Box and joints by constant velocity."""
        passed = min(time - self.time, 0.5)
        centre = (self.box[:2] + self.box[2:]) / 2
        scale, shift = np.exp(self.growth * passed), self.velocity * passed
        moved = self.joints.copy()
        moved[:, :2] = (self.joints[:, :2] - centre) * scale + centre + shift
        box = (self.box - np.tile(centre, 2)) * scale + np.tile(centre + shift, 2)
        return box, moved

    def follow(self, seen: Observation, time: float) -> None:
        """Take a match in."""
        passed = max(time - self.time, 1e-3)
        before, now = (self.box[:2] + self.box[2:]) / 2, (seen.box[:2] + seen.box[2:]) / 2
        both = (self.joints[:, 2] > VISIBLE) & (seen.joints[:, 2] > VISIBLE)
        step = np.median((seen.joints - self.joints)[both, :2], axis=0) if both.sum() >= 3 else now - before
        blend = min(1.0, passed / 0.2)  # about the last fifth of a second
        self.velocity = (1 - blend) * self.velocity + blend * step / passed
        heights = max(self.box[3] - self.box[1], 1.0), max(seen.box[3] - seen.box[1], 1.0)
        self.growth = (1 - blend) * self.growth + blend * float(
            np.clip(np.log(heights[1] / heights[0]) / passed, -1, 1)
        )
        self.box, self.joints, self.time, self.matches = seen.box, seen.joints, time, self.matches + 1
        if seen.colours is not None:
            old = self.colours
            self.colours = seen.colours if old is None else _DECAY * old + (1 - _DECAY) * seen.colours


class Tracker:
    """Gives every detection a track's number. One per video; frames in order."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self._next = 0

    def update(self, people: Sequence[Observation], time: float) -> list[Track | None]:
        """The track of each person of a frame; None for a weak detection of no track."""
        self.tracks = [track for track in self.tracks if time - track.time <= MEMORY]
        result: list[Track | None] = [None] * len(people)
        free = list(self.tracks)
        for strong in (True, False):
            waiting = [i for i, p in enumerate(people) if result[i] is None and (p.score >= STRONG) == strong]
            tracks = [track for track in free if strong or time - track.time <= WEAKLY]
            for i, track in _matched(people, waiting, tracks, time):
                track.follow(people[i], time)
                result[i] = track
                free.remove(track)
        for i, person in enumerate(people):
            if result[i] is None and person.score >= STRONG:
                track = Track(self._next, person.box, person.joints, time, person.colours)
                self._next += 1
                self.tracks.append(track)
                result[i] = track
        return result


def _matched(
    people: Sequence[Observation], waiting: list[int], tracks: list[Track], time: float
) -> list[tuple[int, Track]]:
    if not waiting or not tracks:
        return []
    table = np.array([[similarity(people[i], track, time) for track in tracks] for i in waiting])
    rows, columns = linear_sum_assignment(-table)
    return [(waiting[r], tracks[c]) for r, c in zip(rows, columns, strict=True) if table[r, c] >= LEAST]


def similarity(person: Observation, track: Track, time: float) -> float:
    """In [0, 1]: of joints and boxes where the track is predicted to be, times that of the colours."""
    box, joints = track.at(time)
    lost = max(0.0, time - track.time)
    place = 0.6 * keypoint_similarity(person.joints, joints, box, 1 + 4 * lost) + 0.4 * _overlap(
        person.box, box
    )
    reach = np.linalg.norm((person.box[:2] + person.box[2:] - box[:2] - box[2:]) / 2) / max(
        box[3] - box[1], 1.0
    )
    near = float(np.exp(-0.5 * (reach / (0.25 + lost)) ** 2))
    place = max(place, 0.6 * near if lost > 0.1 else 0.0)
    if person.colours is None or track.colours is None:
        return place
    alike = float(np.sqrt(person.colours * track.colours).sum()) / max(len(_PATCHES), 1)  # Bhattacharyya
    return place * (0.4 + 0.6 * alike)


def keypoint_similarity(
    a: Float[np.ndarray, "17 3"],
    b: Float[np.ndarray, "17 3"],
    box: Float[np.ndarray, "4"],
    loose: float = 1.0,
) -> float:
    """COCO's OKS over the joints that both have, the scale being the box's; loose: factor on its tolerances."""
    both = (a[:, 2] > VISIBLE) & (b[:, 2] > VISIBLE)
    if both.sum() < 2:
        return 0.0
    area = max(float((box[2] - box[0]) * (box[3] - box[1])), 1.0)
    distance = ((a[both, :2] - b[both, :2]) ** 2).sum(1)
    sigma = 2 * np.asarray(COCO_SIGMAS)[both] * loose
    return float(np.exp(-distance / (2 * area * sigma**2)).mean())


def _overlap(a: Float[np.ndarray, "4"], b: Float[np.ndarray, "4"]) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (sides <= 0).any():
        return 0.0
    common = float(sides.prod())
    return common / float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - common)


def colours_of(
    image: UInt8[np.ndarray, "h w 3"], joints: Float[np.ndarray, "17 3"], box: Float[np.ndarray, "4"]
) -> Float[np.ndarray, " c"] | None:
    """Histograms of the colours of torso and thighs, each of sum 1; zeros for a part that is not visible.

    None where no part is. Lightness counts half as finely as in Lab, because shade changes it.
    """
    height = float(box[3] - box[1])
    parts: list[np.ndarray] = []
    for names, share in _PATCHES:
        rows = [COCO17.index(name) for name in names]
        side = max(2.0, share * height / 2)
        x, y = joints[rows, :2].mean(0)
        x1, y1 = max(0, round(x - side)), max(0, round(y - side))
        x2, y2 = min(image.shape[1], round(x + side)), min(image.shape[0], round(y + side))
        if (joints[rows, 2] <= VISIBLE).any() or x2 - x1 < 2 or y2 - y1 < 2:
            parts.append(np.zeros(BINS**3 // 2))
            continue
        patch = cv2.cvtColor(image[y1:y2, x1:x2], cv2.COLOR_RGB2LAB)
        counts, _ = np.histogramdd(
            patch.reshape(-1, 3), bins=(BINS // 2, BINS, BINS), range=((0, 256), (64, 192), (64, 192))
        )
        parts.append(counts.ravel() / max(counts.sum(), 1))
    return np.concatenate(parts) if any(part.any() for part in parts) else None
