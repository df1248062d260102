"""`Video`: people in a video, frame by frame or as whole tracks."""

import math
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Unpack

from dpmesh.errors import ConfigError
from dpmesh.inference.options import PredictKeywords, PredictOptions
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.prepared import FramePredictor
from dpmesh.inference.scene import Scene
from dpmesh.video.camera import StillCamera
from dpmesh.video.decode import FrameSource, Span, open_frames
from dpmesh.video.estimate import DETECT_EVERY, Estimated, estimate
from dpmesh.video.live import LiveFilter
from dpmesh.video.recording import CHECKPOINT, Recording
from dpmesh.video.solve import on_feet
from dpmesh.video.tracks import INTERRUPTED, Tracks
from dpmesh.video.windows import raw_tracks, solved_tracks

Passes = Literal["one", "two", "alternate"]


class Video:
    """People in a video, who keep their numbers from frame to frame.

    >>> import dpmesh
    >>> for scene in dpmesh.Video("clip.mp4"):  # doctest: +SKIP
    ...     print([person.track for person in scene])
    >>> tracks = dpmesh.Video("clip.mp4").tracks()  # doctest: +SKIP
    >>> tracks  # doctest: +SKIP
    Tracks(2 people, 230 frames, 30 fps, 1768×994)

    source: a file (MP4, MOV, WebM, AVI, GIF), a folder of numbered images, "camera:0" or a stream's URL.
    start, end: seconds. every: each n-th frame. fps: of a folder of images, or in place of a video's own times.
    detect_every: frames from one full detection to the next. static_camera: the camera does not move, so that the floor
    is estimated. live: smooth each frame by those before it, without waiting for later ones. passes: forward passes a
    frame, where the predictor takes two: "one"; "two", of the image and its mirror image; "alternate", of one of them
    in turn, so that tracks are means over both (scenes are then of one). predictor: one that is loaded already.
    options: of a predictor's call (focal, max_people, ...).

    Raises InputError, ConfigError.
    """

    def __init__(
        self,
        source: str | Path,
        predictor: Predictor | None = None,
        start: float = 0.0,
        end: float = float("inf"),
        every: int = 1,
        fps: float | None = None,
        detect_every: int = DETECT_EVERY,
        static_camera: bool = False,
        live: bool = False,
        passes: Passes = "alternate",
        **options: Unpack[PredictKeywords],
    ) -> None:
        self.span = Span(start=start, end=end, every=every)
        self.source: FrameSource = open_frames(source, fps)
        self.options = PredictOptions(**options)
        if self.options.corrections is not None or self.options.hypotheses > 1:
            raise ConfigError(
                "corrections and hypotheses are of images",
                where="Video",
                fix="Correct its tracks: docs/guide/corrections.md.",
            )
        self.detect_every, self.static_camera = detect_every, static_camera
        self.live, self.passes = live, passes
        self._predictor = predictor

    @property
    def fps(self) -> float:
        """Frames a second of the source."""
        return self.source.fps

    @property
    def frames(self) -> int | None:
        """Frames of the span, as the source's header has them; None where it does not say."""
        if self.source.length is None:
            return None
        first, last = (time * self.fps for time in (self.span.start, self.span.end))
        return max(1, math.ceil((min(self.source.length, last) - first) / self.span.every))

    @property
    def predictor(self) -> Predictor:
        """The shipped weights where none was given; loaded at first use."""
        if self._predictor is None:
            self._predictor = Predictor.from_pretrained()
        return self._predictor

    def __iter__(self) -> Iterator[Scene]:
        """One scene per frame, with `person.track`, which is None until a track is sure.

        As it is predicted, up to eight frames late; with `live` smoothed, and at most two frames late.
        """
        for one in self._estimates():
            people = (
                replace(person, track=number if number >= 0 else None)
                for person, number in zip(one.scene.people, one.numbers, strict=True)
            )
            yield replace(one.scene, people=tuple(people))

    def tracks(self, progress: Callable[[int, int], None] | None = None) -> Tracks:
        """All people over the whole span: short gaps filled, motion smoothed. A KeyboardInterrupt ends the span early;
        the tracks so far are returned, with a note.

        progress: called after each frame with the frames done and the people in it.
        """
        with (
            tempfile.TemporaryDirectory(prefix="dpmesh-") as folder,
            closing(Recording(Path(folder))) as recording,
        ):
            notes = self.record(recording, progress)
            return self.solve(recording, notes)

    def record(self, recording: Recording, progress: Callable[[int, int], None] | None = None) -> list[str]:
        """Predict the frames that the recording does not have yet, and add them. Returns notes; a KeyboardInterrupt
        ends it early, with a note that begins with INTERRUPTED."""
        notes: list[str] = []
        camera = StillCamera()
        state = recording.tracker
        alternate = self.passes == "alternate" and not self.live
        estimates = self._estimates(recording.last_frame, state, CHECKPOINT, alternate)
        try:
            with closing(estimates):
                for one in estimates:
                    recording.add(one.frame, one.scene, one.numbers)
                    if self.static_camera:
                        camera.add(one.frame.image, [person.box for person in one.scene], one.frame.time)
                        recording.camera_moved |= camera.moved
                    if one.tracker is not None:
                        recording.checkpoint(one.tracker)
                    if progress is not None:
                        progress(recording.frames, len(one.scene))
        except KeyboardInterrupt:
            notes.append(f"{INTERRUPTED} {recording.frames} frames")
        return notes + self.source.notes

    def solve(self, recording: Recording, notes: Sequence[str] = ()) -> Tracks:
        """A recording's tracks, smoothed over time unless they were `live`."""
        if self.live:
            return raw_tracks(recording, self.fps, tuple(notes))
        body = self.predictor.model.body
        if self.static_camera and recording.camera_moved:
            notes = [*notes, "the camera moves: no floor, no world frame"]
        solved = solved_tracks(recording, self.fps, body, tuple(notes))
        return on_feet(solved, body) if self.static_camera and not recording.camera_moved else solved

    def _estimates(
        self, after: int = -1, tracker: Any = None, snapshots: int = 0, alternate: bool = False
    ) -> Generator[Estimated]:
        predictor = FramePredictor(self.predictor, self.passes != "two", alternate)
        smooth = LiveFilter(predictor.model.body) if self.live else None
        estimates = estimate(
            predictor,
            self.source,
            self.span,
            self.options,
            self.detect_every,
            self.live,
            after,
            tracker,
            snapshots,
        )
        with closing(estimates):
            for one in estimates:
                yield (
                    one
                    if smooth is None
                    else one._replace(scene=smooth(one.scene, one.numbers, one.frame.time))
                )
