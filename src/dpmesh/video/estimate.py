"""From frames to tracks: detect, track, predict; one pass, in batches over frames."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from dpmesh.inference.detections import Detection, DetectionResult, PersonDetector, same_person
from dpmesh.inference.options import PredictOptions
from dpmesh.inference.predictor import Predictor, predict_prepared
from dpmesh.inference.preprocess import PreparedImage, prepare_image
from dpmesh.inference.scene import Scene
from dpmesh.video.decode import Frame, FrameSource, Span
from dpmesh.video.smooth import weighted_median
from dpmesh.video.tracker import STRONG, VISIBLE, Observation, Track, Tracker, colours_of
from dpmesh.video.tracks import Tracks, table_of

DETECT_EVERY = 6
"""Frames between two full detections; between them keypoints are detected in the tracks' predicted boxes."""
_ENLARGED = 1.15
"""Of the extent of a track's joints, for its box."""
_WEAK = 0.3
"""Mean keypoint confidence below which a carried person asks for a full detection."""


class TrackedDetector:
    """A detector for the frames of a video, which gives every person a track.

    The predictor's own detector runs in full every `every` frames, and when a track has become weak; in between only
    its keypoint model runs, in the boxes where the tracks are predicted to be.
    """

    def __init__(self, detector: PersonDetector, every: int = DETECT_EVERY) -> None:
        self.detector, self.every = detector, every
        self.tracker = Tracker()
        self.time = 0.0
        self.track_of: dict[int, Track] = {}
        """Of the last frame: id of a Detection -> its track."""
        self._since = every
        self.counts = Counter[str]()

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], max_people: int = 20) -> DetectionResult:
        size = image.shape[0], image.shape[1]
        carried = [track for track in self.tracker.tracks if self.time - track.time < 0.25 and track.shown]
        if self._since >= self.every or not carried:
            result = self.detector(image, max_people)
            self._since = 0
            self.counts["frames detected in full"] += 1
        else:
            boxes = np.stack([_box_of(track, self.time, size) for track in carried])
            people = self.detector.keypoints_in_boxes(image, boxes, np.full(len(boxes), 0.9, np.float32))
            result = DetectionResult(_apart(people), 0, 0)
            if len(result.people) < len(carried) or any(_confidence(p) < _WEAK for p in result.people):
                self._since = self.every
            self.counts["frames with carried boxes"] += 1
        self._since += 1
        observed = [
            Observation(p.box, p.keypoints, p.score, colours_of(image, p.keypoints, p.box))
            for p in result.people
        ]
        tracks = self.tracker.update(observed, self.time)
        self.track_of = {id(p): t for p, t in zip(result.people, tracks, strict=True) if t is not None}
        return result

    def keypoints_in_boxes(self, *args: Any, **options: Any) -> tuple[Detection, ...]:
        """The detector's own."""
        return self.detector.keypoints_in_boxes(*args, **options)


def _box_of(track: Track, time: float, size: tuple[int, int]) -> Float32[np.ndarray, "4"]:
    """Where the track's joints are predicted to be, inside the image and of at least 8 px."""
    box, joints = track.at(time)
    visible = joints[joints[:, 2] > VISIBLE, :2]
    if len(visible) >= 4:
        low, high = visible.min(0), visible.max(0)
        reach = (high - low) * (_ENLARGED - 1) / 2
        box = np.concatenate([np.minimum(low - reach, box[:2]), np.maximum(high + reach, box[2:])])
    limit = np.array([size[1], size[0]], np.float64)
    low, high = np.clip(box[:2], 0, limit - 8), np.clip(box[2:], 8, limit)
    return np.concatenate([low, np.maximum(high, low + 8)]).astype(np.float32)


def _apart(people: tuple[Detection, ...]) -> tuple[Detection, ...]:
    """Without those whose pose is another's: two tracks have slid onto one person. The surer one stays."""
    kept: list[Detection] = []
    for person in sorted(people, key=_confidence, reverse=True):
        if person.posed and not any(
            same_person(person.keypoints, person.box, other.keypoints, other.box) for other in kept
        ):
            kept.append(person)
    return tuple(kept)


def _confidence(person: Detection) -> float:
    return float(person.keypoints[:, 2].mean())


@dataclass(eq=False)
class Estimate:
    """Rows of all frames read so far, frame-wise: not filtered, not smoothed."""

    K: np.ndarray | None = None
    image_size: tuple[int, int] = (0, 0)
    frames: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    betas: list[np.ndarray] = field(default_factory=list)
    fallbacks: Counter[str] = field(default_factory=Counter[str])
    focal_source: str = "diagonal"

    def add(self, frame: Frame, scene: Scene, numbers: list[int]) -> None:
        self.K, self.image_size, self.focal_source = scene.K, scene.image_size, scene.focal_source
        self.frames += 1
        self.fallbacks.update(scene.fallbacks)
        for person, number in zip(scene.people, numbers, strict=True):
            if number < 0:
                continue
            names = (
                "box",
                "score",
                "keypoints2d",
                "global_orient",
                "body_pose",
                "transl",
                "joints3d",
                "joints2d",
            )
            row = {name: getattr(person, name) for name in (*names, "joint_sigma")}
            self.rows.append(
                {
                    **row,
                    "frame": frame.index,
                    "time": frame.time,
                    "track": number,
                    "interpolated": False,
                    "contacts": (False,) * 4,
                }
            )
            self.betas.append(person.betas)


def estimate(
    predictor: Predictor,
    source: FrameSource,
    span: Span,
    options: PredictOptions,
    every: int = DETECT_EVERY,
) -> Iterator[tuple[Frame, Scene, list[int]]]:
    """Each frame, its scene and the track's number of each person (-1: none yet), in order.

    Raises InputError for a frame that cannot be used.
    """
    detector = TrackedDetector(predictor.detector, every)
    waiting: list[tuple[Frame, PreparedImage, list[int]]] = []
    for frame in source.frames(span):
        detector.time = frame.time
        prepared = prepare_image(detector, frame.image, options)
        tracks = [detector.track_of.get(id(person)) for person in prepared.people]
        waiting.append((frame, prepared, [-1 if track is None else track.number for track in tracks]))
        if sum(len(p.people) for _, p, _ in waiting) >= predictor.batch or len(waiting) >= 16:
            yield from _predicted(predictor, waiting, options)
            waiting = []
    yield from _predicted(predictor, waiting, options)


def _predicted(
    predictor: Predictor, waiting: list[tuple[Frame, PreparedImage, list[int]]], options: PredictOptions
) -> Iterator[tuple[Frame, Scene, list[int]]]:
    recorded = options.record()
    for frame, prepared, numbers in waiting:
        yield frame, predict_prepared(predictor, prepared, recorded), numbers


def tracks_of(estimated: Estimate, fps: float, notes: tuple[str, ...] = ()) -> Tracks:
    """The rows as tracks, with each track's own median shape. Tracks that were never sure are dropped."""
    columns = table_of(estimated.rows)
    betas = np.asarray(estimated.betas, np.float32).reshape(-1, 10)
    numbers = np.unique(columns["track"])
    enough = [n for n in numbers if (columns["score"][columns["track"] == n] >= STRONG).sum() >= 3]
    keep = np.isin(columns["track"], enough)
    columns, betas = {name: values[keep] for name, values in columns.items()}, betas[keep]
    order = np.lexsort((columns["track"], columns["frame"]))
    columns, betas = {name: values[order] for name, values in columns.items()}, betas[order]
    numbers = np.unique(columns["track"]).astype(np.int64)
    sure = 1 / np.maximum(np.nan_to_num(columns["joint_sigma"], nan=0.1).mean(1), 0.01) ** 2
    own = [columns["track"] == n for n in numbers]
    shapes = [weighted_median(betas[rows], sure[rows]) for rows in own]
    fields: dict[str, Any] = {**columns}
    return Tracks(
        **fields,
        numbers=numbers,
        betas=np.asarray(shapes, np.float32).reshape(-1, 10),
        K=np.eye(3) if estimated.K is None else estimated.K,
        fps=fps,
        image_size=estimated.image_size,
        frames=estimated.frames,
        notes=notes,
        fallbacks=dict(estimated.fallbacks),
    )
