"""The files of a video's result: tables, overlay, plot, and the animations of other programs."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpmesh.body.layer import BodyModel
from dpmesh.errors import AssetError
from dpmesh.inference.corrections import Correction, corrections_of
from dpmesh.io import atomic_path, atomic_write
from dpmesh.skeletons import JOINTS30
from dpmesh.video.decode import FrameSource, Span
from dpmesh.video.exports import animated_glb, csv_lines, write_lines, write_motions
from dpmesh.video.overlay import write_overlay
from dpmesh.video.plot import plot_png
from dpmesh.video.tables import ARRAYS, TABLE, TEXT, write_tables
from dpmesh.video.tracks import Tracks

_FIXED = {TABLE, TEXT, "overlay.mp4", "scene.glb", "joints.csv", "tracks.png"}
_PERSON = re.compile(r"person_\d+(\.bvh|\.trc|_amass\.npz)")


def is_own(name: str) -> bool:
    """Whether a result has files of this name."""
    return name in _FIXED or _PERSON.fullmatch(name) is not None


def is_result(folder: Path) -> bool:
    """Whether the folder holds a video's result and nothing else."""
    names = [path.name for path in folder.iterdir()]
    return TEXT in names and all(map(is_own, names))


def save_tables(tracks: Tracks, folder: Path, provenance: Mapping[str, Any]) -> None:
    """tracks.npz and tracks.json. provenance: further entries of the latter. Raises OutputError."""
    people: list[dict[str, Any]] = []
    steps = corrections_of([dict(step) for step in tracks.corrections], "corrections")
    for number in tracks.numbers:
        own = tracks.of(int(number))
        people.append(
            {
                "track": int(number),
                "rows": len(own),
                "interpolated": int(tracks.interpolated[own].sum()),
                "first_frame": int(tracks.frame[own[0]]),
                "last_frame": int(tracks.frame[own[-1]]),
                "first_second": round(float(tracks.time[own[0]]), 4),
                "last_second": round(float(tracks.time[own[-1]]), 4),
                **({"corrected": marks} if (marks := _marks(steps, int(number))) else {}),
            }
        )
    ground = tracks.ground
    content = {
        "fps": tracks.fps,
        "image_size": list(tracks.image_size),
        "K": np.asarray(tracks.K).tolist(),
        "frames": tracks.frames,
        "joint_names": list(JOINTS30.joints),
        "units": "metres, camera frame: x right, y down, z forward; axis-angle; pixels",
        "people": people,
        "world": None
        if ground is None
        else {"rotation": ground.rotation.tolist(), "translation": ground.translation.tolist()},
        "exported_frame": "camera" if ground is None else "world",
        "fallbacks": {**tracks.fallbacks, "interpolated": int(tracks.interpolated.sum())},
        "notes": list(tracks.notes),
        **({"corrections": [dict(step) for step in tracks.corrections]} if tracks.corrections else {}),
        **provenance,
    }
    write_tables(folder, {name: getattr(tracks, name) for name in ARRAYS}, content)


def _marks(steps: Sequence[Correction], number: int) -> list[str]:
    """The corrections of a person in words."""
    own = (
        step
        for step in steps
        if step.person == number or (step.op == "floor" and (step.people is None or number in step.people))
    )
    return list(dict.fromkeys(step.mark for step in own))


def write_result(
    tracks: Tracks,
    folder: Path,
    body: BodyModel,
    frames: FrameSource | None,
    span: Span,
    provenance: Mapping[str, Any],
    formats: Sequence[str],
    unit: str = "cm",
) -> list[str]:
    """All files of a result into an empty folder; returns notes on what could not be made. The tables, which have the
    notes, come last. Raises OutputError, InputError.

    frames: the video, where it is at hand, of which `span` was read.
    formats: of "overlay", "side" (the overlay with the view from the side next to it), "glb", "bvh", "trc", "amass",
    "csv", "plot"; the tables are always written. unit: of lengths in BVH files.
    """
    faces = body.faces.cpu().numpy().astype(np.int32)
    folder.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    write_motions(tracks, body, folder, formats, unit)
    if "csv" in formats:
        write_lines(folder / "joints.csv", csv_lines(tracks))
    if "glb" in formats and len(tracks):
        with atomic_path(folder / "scene.glb") as part, part.open("wb") as file:
            file.writelines(animated_glb(tracks, body, faces))
    if "plot" in formats and len(tracks):
        try:
            atomic_write(folder / "tracks.png", plot_png(tracks))
        except AssetError as error:
            notes.append(f"no tracks.png: {error}")
    if {"overlay", "side"} & {*formats}:
        if frames is None:
            notes.append("no overlay.mp4: the video is not there")
        elif frames.live:
            notes.append("no overlay.mp4: the frames of a camera or stream are read once")
        else:
            notes += write_overlay(tracks, frames, span, body, folder / "overlay.mp4", "side" in formats)
    merged = tuple(dict.fromkeys([*tracks.notes, *notes]))
    save_tables(tracks.with_notes(merged), folder, provenance)
    return notes
