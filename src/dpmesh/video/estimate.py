"""From frames to people with tracks: detect, track, predict; one pass, in batches over frames."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from dpmesh.errors import InputError
from dpmesh.inference.detections import Detection, DetectionResult, PersonDetector, same_person
from dpmesh.inference.options import PredictOptions
from dpmesh.inference.prepared import FramePredictor
from dpmesh.inference.preprocess import PreparedImage, prepare_image
from dpmesh.inference.rolled import RolledDetector
from dpmesh.inference.scene import Scene
from dpmesh.video.ahead import ahead, batches
from dpmesh.video.decode import Frame, FrameSource, Span
from dpmesh.video.snapshot import packed, unpacked
from dpmesh.video.tracker import VISIBLE, Observation, Track, Tracker, colours_of

DETECT_EVERY = 6
"""Frames between two full detections; between them keypoints are detected in the tracks' predicted boxes."""
LOOK_AHEAD = 8
"""Most frames whose people share a batch."""
_WAITING_BYTES = 64 * 2**20
"""Of the images of a batch."""
_ENLARGED = 1.15
"""Of the extent of a track's joints, for its box."""
_WEAK = 0.3
"""Mean keypoint confidence below which a carried person asks for a full detection."""


class TrackedDetector:
    """A detector for the frames of a video, which gives every person a track.

    The predictor's own detector runs in full every `every` frames, and when a track has become weak; in between only
    its keypoint model runs, in the boxes where the tracks are predicted to be. roll: of the camera, degrees
    (PredictOptions).
    """

    turns_images = True
    """It gives its detector upright images, and its people are those of the images as they are."""

    def __init__(self, detector: PersonDetector, every: int = DETECT_EVERY, roll: float = 0.0) -> None:
        self.detector, self.every = RolledDetector(detector, roll) if roll else detector, every
        self.tracker = Tracker()
        self.time = 0.0
        self.track_of: dict[int, Track] = {}
        """Of the last frame: id of a Detection -> its track."""
        self.carried = False
        """Whether the last frame's people were detected in the tracks' boxes only."""
        self._since = every

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], max_people: int = 20) -> DetectionResult:
        size = image.shape[0], image.shape[1]
        carried = [track for track in self.tracker.tracks if self.time - track.time < 0.25 and track.shown]
        self.carried = self._since < self.every and bool(carried)
        if not self.carried:
            result = self.detector(image, max_people)
            self._since = 0
        else:
            boxes = np.stack([_box_of(track, self.time, size) for track in carried])
            people = self.detector.keypoints_in_boxes(image, boxes, np.full(len(boxes), 0.9, np.float32))
            result = DetectionResult(_apart(people), 0, 0)
            if len(result.people) < len(carried) or any(_confidence(p) < _WEAK for p in result.people):
                self._since = self.every
        self._since += 1
        observed = [
            Observation(p.box, p.keypoints, p.score, colours_of(image, p.keypoints, p.box))
            for p in result.people
        ]
        tracks = self.tracker.update(observed, self.time)
        self.track_of = {id(p): t for p, t in zip(result.people, tracks, strict=True) if t is not None}
        return result

    def state(self) -> Any:
        """All that later frames depend on, as JSON values."""
        return {"tracker": packed(vars(self.tracker)), "since": self._since}

    def restore(self, state: Any) -> None:
        """Go on from a state. Raises InputError where it is none."""
        try:
            vars(self.tracker).update(unpacked(state["tracker"], {"Track": Track}))
            self._since = int(state["since"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"the tracker's state is damaged ({type(error).__name__})",
                where="--resume",
                fix="Leave it out.",
            ) from None

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


class Estimated(NamedTuple):
    """A frame, its people, and the track's number of each of them (-1: none yet)."""

    frame: Frame
    scene: Scene
    numbers: list[int]
    tracker: Any = None
    """State of the tracker after the frame, where one was asked for (`TrackedDetector.state`)."""


@dataclass(frozen=True, eq=False)
class _Detected:
    frame: Frame
    prepared: PreparedImage
    numbers: list[int]
    tracker: Any


def estimate(
    predictor: FramePredictor,
    source: FrameSource,
    span: Span,
    options: PredictOptions,
    every: int = DETECT_EVERY,
    live: bool = False,
    after: int = -1,
    tracker: Any = None,
    snapshots: int = 0,
) -> Generator[Estimated]:
    """The frames of the span in order. Decoding and detection run in threads of their own, ahead of the network.

    every: frames from one full detection to the next. live: no frame waits for later ones, and a camera's frames that
    come while the one before is predicted are dropped; otherwise the people of up to LOOK_AHEAD frames share a batch.
    after, tracker: go on after this frame, with the tracker's state of then. snapshots: frames from one state of the
    tracker to the next; 0: none. Raises InputError for a frame that cannot be used.
    """
    detector = TrackedDetector(predictor.detector, every, options.roll or 0.0)
    if tracker is not None:
        detector.restore(tracker)
    frames = source.frames(span)
    if source.live or not live:  # a file's frames are decoded when they are needed
        frames = ahead(frames, 1, latest=live)
    frames = (frame for frame in frames if frame.index > after)
    detections = ahead(_detections(detector, frames, options, snapshots), 1 if live else LOOK_AHEAD // 2)
    recorded = options.record()

    def full(waiting: list[_Detected]) -> bool:
        return (
            live
            or len(waiting) >= LOOK_AHEAD
            or sum(len(one.prepared.people) for one in waiting) >= predictor.batch
            or sum(one.frame.image.nbytes for one in waiting) >= _WAITING_BYTES
        )

    with closing(detections):
        for waiting in batches(detections, full):
            scenes = predictor.scenes([one.prepared for one in waiting], recorded)
            for one, scene in zip(waiting, scenes, strict=True):
                yield Estimated(one.frame, scene, one.numbers, one.tracker)


def _detections(
    detector: TrackedDetector, frames: Iterator[Frame], options: PredictOptions, snapshots: int
) -> Generator[_Detected]:
    for count, frame in enumerate(frames, start=1):
        detector.time = frame.time
        prepared = prepare_image(detector, frame.image, options)
        tracks = [detector.track_of.get(id(person)) for person in prepared.people]
        numbers = [-1 if track is None else track.number for track in tracks]
        prepared.fallbacks["carried_boxes"] += detector.carried
        state = detector.state() if snapshots and count % snapshots == 0 else None
        yield _Detected(frame, prepared, numbers, state)
