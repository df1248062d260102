"""What is corrected in the viewer: an image's prediction or a video's tracks, its list of steps, and its files.

What a step does is in inference/correct.py and video/correct.py; a shorter list undoes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.inference.corrections import Correction, Corrections, Entry, corrections_record
from dpmesh.inference.hypotheses import with_hypotheses
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.scene import Scene
from dpmesh.io import atomic_write
from dpmesh.video.correct import correct_tracks
from dpmesh.video.decode import Span, open_frames
from dpmesh.video.files import write_result
from dpmesh.video.tracks import Tracks
from dpmesh.video.unfinished import RESULT, finish, publish, unfinished
from dpmesh.viewer.results import ShownResult, shown_scene, shown_tracks, video_images

LIST = "corrections.json"


@runtime_checkable
class Document(Protocol):
    """steps: what the list holds; undoing shortens it. unapplied: why what was saved before was left out, empty where
    it was not. out: folder of the corrected result and its list."""

    steps: list[Correction]
    unapplied: str
    out: Path

    @property
    def K(self) -> Float[np.ndarray, "3 3"]: ...

    def frame(self, position: int) -> int | None:
        """The number that steps give to a frame of the timeline; None for an image."""
        ...

    def shown(self) -> ShownResult:
        """Raises InputError for a step that is not allowed."""
        ...

    def numbers(self) -> list[int]:
        """Of the people that are left: as the steps count them."""
        ...

    @property
    def has_overlay(self) -> bool:
        """Whether an overlay can be saved that takes long."""
        ...

    def save(self, overlay: bool = False) -> Path:
        """Write the corrected result, and its steps into `corrections.json` beside those of others.

        Returns the result's folder. Raises OutputError, and InputError for a damaged list.
        """
        ...


@dataclass(eq=False)
class CorrectedImage:
    """One image's prediction and the steps that correct it. out: folder of the corrected result and its list.

    Raises InputError where the scene is corrected already, has no image, or was predicted with other weights.
    """

    scene: Scene
    predictor: Predictor
    out: Path
    name: str
    steps: list[Correction] = field(default_factory=list[Correction])
    unapplied: str = ""

    def __post_init__(self) -> None:
        where = self.scene.source or self.name
        _refuse_corrected(self.scene.corrections, where)
        if self.scene.image is None:
            raise InputError("its image is not there", where=where, fix="Give it with --image FILE.")
        if dict(self.scene.weights) != dict(self.predictor.weights):
            raise InputError("was predicted with other weights", where=where, fix="Give them with --weights.")

    @property
    def K(self) -> Float[np.ndarray, "3 3"]:
        return self.scene.K

    def frame(self, position: int) -> int | None:
        return None

    def corrected(self) -> Scene:
        scene, body = self.predictor.correct(self.scene, self.steps), self.predictor.model.body
        count = self.scene.options.get("hypotheses", 1)
        return with_hypotheses(scene, count, body) if self.steps and isinstance(count, int) else scene

    def shown(self) -> ShownResult:
        scene = self.corrected()
        shown = shown_scene(scene, self.predictor.model.body, self.name, self.numbers())
        return replace(shown, notes=scene.notes[len(self.scene.notes) :])

    def numbers(self) -> list[int]:
        count = len(self.scene) + sum(step.op == "add" for step in self.steps)
        return [number for number in range(count) if number not in _deleted(self.steps)]

    @property
    def has_overlay(self) -> bool:
        return False

    def save(self, overlay: bool = False) -> Path:
        folder = self.corrected().save(self.out, self.name, overwrite=True)
        _add_to_list(self, Entry(self.scene.source, self.scene.source_sha256, tuple(self.steps)))
        return folder


@dataclass(eq=False)
class CorrectedVideo:
    """One video's tracks and the steps that correct them. record: the content of its tracks.json. video: its file,
    empty where that is not there. Raises InputError where the tracks are corrected already."""

    tracks: Tracks
    body: BodyModel
    record: Mapping[str, Any]
    video: str
    out: Path
    name: str
    steps: list[Correction] = field(default_factory=list[Correction])
    unapplied: str = ""

    def __post_init__(self) -> None:
        _refuse_corrected(self.tracks.corrections, self.name)
        if not isinstance(self.record.get("options"), dict):
            raise InputError("has no options", where=f"{self.name}/tracks.json")
        self._images = video_images(self.tracks, self.record, self.video)

    @property
    def K(self) -> Float[np.ndarray, "3 3"]:
        return self.tracks.K

    def frame(self, position: int) -> int | None:
        return int(self._images.frames[position]) if position < len(self._images.frames) else 0

    def corrected(self) -> Tracks:
        return correct_tracks(self.tracks, self.steps, self.body)

    def shown(self) -> ShownResult:
        return shown_tracks(self.corrected(), self.body, self.name, self._images, self.tracks)

    def numbers(self) -> list[int]:
        deleted = _deleted(self.steps)
        return [number for number in self.tracks.numbers.tolist() if number not in deleted]

    @property
    def has_overlay(self) -> bool:
        return bool(self.video)

    def save(self, overlay: bool = False) -> Path:
        """The files that the video's own result has, made again. overlay: also that video, if it has one."""
        options = {**self.record["options"], "corrections": corrections_record(self.steps)}
        names = ("source", "weights", "focal_source")
        made = {name: self.record[name] for name in names if name in self.record} | {"options": options}
        try:
            span = Span(
                start=float(options["start"]),
                end=float("inf") if options["end"] is None else float(options["end"]),
                every=int(options["every"]),
            )
            saved, unit = [str(name) for name in options["save"]], str(options["units"])
        except (KeyError, TypeError, ValueError):
            raise InputError(
                "its options are not those of a video", where=f"{self.name}/tracks.json"
            ) from None
        formats = [name for name in saved if overlay or name not in ("overlay", "side")]
        options["save"] = formats
        frames = open_frames(self.video, options.get("fps")) if self.video else None
        target = self.out / self.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(target, options, resume=False) as (part, _):
            write_result(self.corrected(), part / RESULT, self.body, frames, span, made, formats, unit)
            publish(part, target)
            finish(part)
        _add_to_list(self, video_entry(self.record, self.steps))
        return target


def video_entry(record: Mapping[str, Any], steps: list[Correction]) -> Entry:
    """Of a video's list. record: its tracks.json."""
    options = record.get("options")
    made = options.get("input") if isinstance(options, dict) else None
    sha256 = made.get("sha256", "") if isinstance(made, dict) else ""
    return Entry(str(record.get("source", "")), str(sha256), tuple(steps))


def _refuse_corrected(corrections: object, where: str) -> None:
    if corrections:
        fix = "Open the uncorrected result with --corrections FILE."
        raise InputError("is corrected already", where=where, fix=fix)


def _deleted(steps: list[Correction]) -> set[int | None]:
    return {step.person for step in steps if step.op == "delete"}


def leave_out(document: Document, reason: str) -> None:
    """Begin without the steps that were saved before. reason: why."""
    document.steps.clear()
    path = document.out / LIST
    document.unapplied = f"{path} is not applied: {reason}. Saving keeps it as {_free_name(path).name}."


def _of_same_file(one: Entry, other: Entry) -> bool:
    """As Corrections.of tells files apart."""
    same_name = Path(one.source).name == Path(other.source).name
    return one.sha256 == other.sha256 and (bool(one.sha256) or same_name)


def _free_name(path: Path) -> Path:
    numbered = (path.with_stem(f"{path.stem}_{number}") for number in count(1))
    return next(other for other in numbered if not other.exists())


def _add_to_list(document: Document, entry: Entry) -> None:
    """The entry takes the place of those of the same file. A list that was left out stays under another name."""
    path = document.out / LIST
    others = Corrections.read(path).entries if path.exists() else ()
    if document.unapplied and path.exists():
        atomic_write(_free_name(path), path.read_bytes())
    Corrections((*(one for one in others if not _of_same_file(one, entry)), entry)).write(path)
    document.unapplied = ""
