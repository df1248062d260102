"""`Video`: people in a video, frame by frame or as whole tracks."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from dpmesh.inference.options import PredictKeywords, PredictOptions
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.scene import Scene
from dpmesh.video.camera import StillCamera
from dpmesh.video.decode import FrameSource, Span, open_frames
from dpmesh.video.estimate import DETECT_EVERY, Estimate, estimate, tracks_of
from dpmesh.video.solve import solve_tracks
from dpmesh.video.tracks import Tracks


class Video:
    """People in a video, who keep their numbers from frame to frame.

    >>> import dpmesh
    >>> for scene in dpmesh.Video("clip.mp4"):  # doctest: +SKIP
    ...     print([person.track for person in scene])
    >>> tracks = dpmesh.Video("clip.mp4").tracks()  # doctest: +SKIP
    >>> tracks  # doctest: +SKIP
    Tracks(2 people, 230 frames, 30 fps, 1768×994)

    source: a file (MP4, MOV, WebM, AVI, GIF), a folder of numbered images, "camera:0" or a stream's URL.
    start, end: seconds. every: each n-th frame. fps: of a folder of images, or in place of a video's own.
    detect_every: frames from one full detection to the next. static_camera: the camera does not move, so that the floor
    is estimated. predictor: one that is loaded already. options: of a predictor's call (focal, max_people, ...).

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
        **options: Unpack[PredictKeywords],
    ) -> None:
        self.span = Span(start=start, end=end, every=every)
        self.source: FrameSource = open_frames(source, fps)
        self.options = PredictOptions(**options)
        self.detect_every, self.static_camera = detect_every, static_camera
        self._predictor = predictor

    @property
    def fps(self) -> float:
        """Frames a second of the source."""
        return self.source.fps

    @property
    def predictor(self) -> Predictor:
        """The shipped weights where none was given; loaded at first use."""
        if self._predictor is None:
            self._predictor = Predictor.from_pretrained()
        return self._predictor

    def __iter__(self) -> Iterator[Scene]:
        """One scene per frame, as it is predicted: not smoothed. `person.track` is None until a track is sure."""
        for _, scene, numbers in estimate(
            self.predictor, self.source, self.span, self.options, self.detect_every
        ):
            people = (
                replace(person, track=number if number >= 0 else None)
                for person, number in zip(scene.people, numbers, strict=True)
            )
            yield replace(scene, people=tuple(people))

    def tracks(self, progress: Callable[[int, int], None] | None = None) -> Tracks:
        """All people over the whole span: short gaps filled, motion smoothed. A KeyboardInterrupt ends the span early;
        the tracks so far are returned, with a note.

        progress: called after each frame with the frames done and the people in it.
        """
        done, camera = Estimate(), StillCamera()
        notes: list[str] = []
        try:
            for frame, scene, numbers in estimate(
                self.predictor, self.source, self.span, self.options, self.detect_every
            ):
                done.add(frame, scene, numbers)
                if self.static_camera:
                    camera.add(frame.image, [person.box for person in scene], frame.time)
                if progress is not None:
                    progress(done.frames, len(scene))
        except KeyboardInterrupt:
            notes.append(f"interrupted after {done.frames} frames")
        notes += self.source.notes
        if camera.moved:
            notes.append("the camera moves: no floor, no world frame")
        tracks = tracks_of(done, self.fps, tuple(notes))
        still = self.static_camera and not camera.moved
        return solve_tracks(tracks, self.predictor.model.body, still)
