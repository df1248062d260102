"""How the people of a clip are predicted: as `dpmesh video` does, or frame by frame."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8
from scipy.optimize import linear_sum_assignment

from dpmesh.data.synthocc.clips import HEIGHT, WIDTH, Clip
from dpmesh.data.synthocc.draws import Draws
from dpmesh.data.synthocc.motion import FPS
from dpmesh.evaluate.clip_scores import TrackRows
from dpmesh.inference.detections import Detection, DetectionResult, box_iou
from dpmesh.inference.predictor import Predictor
from dpmesh.skeletons import COCO17, JOINTS30
from dpmesh.video.video import Video

LINK, MEMORY = 0.3, FPS // 2
"""Least overlap of a box with the last one of a track, and for how many frames a track is kept, of `gaussian`."""
SIGMA = 2.0
"""Frames: 0.08 s."""
NOISE = 0.015
"""Of a person's height in the image: standard deviation of the keypoints of TrueKeypoints."""
_NOISE = 7
"""Last number of the keys of its draws."""


def as_video(predictor: Predictor, clip: Clip, folder: Path) -> TrackRows:
    """`dpmesh video FOLDER --fps 25 --static-camera --focal F`."""
    tracks = Video(folder, predictor, fps=FPS, static_camera=True, focal=clip.focal).tracks()
    return TrackRows(tracks.frame, tracks.track, tracks.joints3d, tracks.joints2d)


def frame_wise(predictor: Predictor, clip: Clip, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> TrackRows:
    """Every frame alone; people are numbered in the order of detection."""
    rows = [
        (t, number, person.joints3d, person.joints2d)
        for t, image in enumerate(images)
        for number, person in enumerate(predictor(image, focal=clip.focal))
    ]
    return _rows(rows)


def gaussian(predictor: Predictor, clip: Clip, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> TrackRows:
    """`frame_wise`, linked by boxes, and each track's joints weighted with a Gaussian over time."""
    rows = linked(frame_wise(predictor, clip, images))
    joints3d = rows.joints3d.astype(np.float64)
    for track in np.unique(rows.track):
        own = np.flatnonzero(rows.track == track)
        gap = rows.frame[own][:, None] - rows.frame[own]
        weight = np.exp(-0.5 * (gap / SIGMA) ** 2)
        joints3d[own] = np.einsum("ab,bjc->ajc", weight / weight.sum(1, keepdims=True), rows.joints3d[own])
    return TrackRows(rows.frame, rows.track, joints3d, clip.pixels(joints3d))


def linked(rows: TrackRows) -> TrackRows:
    """With tracks: each box belongs to the track whose last box it overlaps, at best altogether (Hungarian)."""
    last: dict[int, tuple[int, Float[np.ndarray, 4]]] = {}
    track = np.full(len(rows.frame), -1)
    boxes = np.concatenate([rows.joints2d.min(1), rows.joints2d.max(1)], 1).astype(np.float64)
    for t in np.unique(rows.frame):
        here = np.flatnonzero(rows.frame == t)
        open_ = [number for number, (seen, _) in last.items() if t - seen <= MEMORY]
        if open_:
            overlap = box_iou(boxes[here], np.stack([last[number][1] for number in open_]))
            for a, b in zip(*linear_sum_assignment(-overlap), strict=True):
                if overlap[a, b] >= LINK:
                    track[here[a]] = open_[b]
        for row in here:
            if track[row] < 0:
                track[row] = len(last)
            last[int(track[row])] = (int(t), boxes[row])
    return TrackRows(rows.frame, track, rows.joints3d, rows.joints2d)


def _rows(rows: list[tuple[int, int, Float32[np.ndarray, "30 3"], Float32[np.ndarray, "30 2"]]]) -> TrackRows:
    if not rows:
        none = np.zeros(0, np.int64)
        return TrackRows(none, none, np.zeros((0, 30, 3)), np.zeros((0, 30, 2)))
    frame, track, joints3d, joints2d = zip(*rows, strict=True)
    return TrackRows(np.array(frame), np.array(track), np.stack(joints3d), np.stack(joints2d))


class TrueKeypoints:
    """A detector that knows the truth of a clip: COCO's joints with Gaussian noise, hidden ones left out.

    images: the clip's frames; another image has no people. It isolates tracking and smoothing from detection.
    """

    name = "ground truth with noise"

    def __init__(self, clip: Clip, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> None:
        self._frames = {image.tobytes(): t for t, image in enumerate(images)}
        points = clip.pixels(clip.coco)
        height = (points[..., 1].max(-1) - points[..., 1].min(-1))[..., None, None]
        noise = Draws(clip.number, clip.key, _NOISE).normal(*points.shape)
        hidden = clip.hidden[..., np.array(COCO17.indices_in(JOINTS30))]
        confidence = np.where(hidden, 0.0, 0.9)[..., None]
        self._people = np.concatenate([points + NOISE * height * noise, confidence], -1)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], max_people: int = 20) -> DetectionResult:
        t = self._frames.get(image.tobytes())
        people = [] if t is None else [self._person(one) for one in self._people[:, t]]
        return DetectionResult(tuple(one for one in people if one is not None)[:max_people])

    def keypoints_in_boxes(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        boxes: Float32[np.ndarray, "n 4"],
        scores: Float32[np.ndarray, "n"] | None = None,
    ) -> tuple[Detection, ...]:
        """In each box the person who overlaps it most; no keypoints where none does."""
        people = self(image).people
        out: list[Detection] = []
        for k, box in enumerate(boxes):
            overlap = [float(box_iou(box[None], one.box[None])[0, 0]) for one in people]
            score = 0.9 if scores is None else float(scores[k])
            if overlap and max(overlap) > 0:
                chosen = people[int(np.argmax(overlap))]
                out.append(Detection(box, chosen.keypoints, score))
            else:
                out.append(Detection(box, np.zeros((17, 3), np.float32), score))
        return tuple(out)

    @staticmethod
    def _person(keypoints: Float[np.ndarray, "17 3"]) -> Detection | None:
        visible = keypoints[keypoints[:, 2] > 0, :2]
        if len(visible) < 4:
            return None
        low, high = visible.min(0), visible.max(0)
        reach = 0.08 * (high - low).max()
        box = np.concatenate([np.maximum(low - reach, 0), np.minimum(high + reach, [WIDTH, HEIGHT])])
        return Detection(box.astype(np.float32), keypoints.astype(np.float32), 0.9)
