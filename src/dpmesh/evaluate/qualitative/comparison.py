"""The same people of an image through every column, and the result as files.

from dpmesh.evaluate.qualitative.columns import open_columns
from dpmesh.evaluate.qualitative.comparison import compare
compare(open_columns(["embedded", "runs/mine"], ["network", "flip"]), "photo.jpg").save("out")
"""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from dpmesh.errors import DPMeshError, InputError, OutputError
from dpmesh.evaluate.qualitative.columns import Column
from dpmesh.evaluate.qualitative.figure import SIDE, Panel, draw_panels, draw_sheet, observed_confidence
from dpmesh.inference.options import PredictOptions
from dpmesh.inference.predictor import predict_prepared
from dpmesh.inference.preprocess import ImageSource, PreparedImage, prepare_image
from dpmesh.inference.result_folder import png
from dpmesh.inference.scene import Scene
from dpmesh.inference.staging import CLAIM, STAGING, refuse_staging, staging_folder, staging_path, write_files
from dpmesh.io import LOCK, atomic_write, folder_lock, is_part, read_json, reason, refuse_foreign_lock

_DEFAULTS = PredictOptions()
SCHEMA = "dpmesh.comparison/1"
SHEET, RECORD = "sheet.png", "comparison.json"
_FILE = re.compile(r"(sheet|input|keypoints|(overlay|side)_\d{2,4})\.png")
"""No other file is replaced or removed, even if a record names it."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """scenes: of each column the same people in the same order. people_from: "detector", or what the user supplied."""

    job: PreparedImage
    columns: tuple[Column, ...]
    scenes: tuple[Scene, ...]
    people_from: str = "detector"

    def panels(self, size: int = SIDE, crop: bool = False) -> dict[str, Panel]:
        """The drawings by name (figure.draw_panels). size: each has as many pixels as a square of this side. crop:
        only what is around the people."""
        return draw_panels(self.job, self.scenes, size, crop)

    def sheet(self, panels: Mapping[str, Panel] | None = None, legend: bool = True) -> Panel:
        """All panels in columns, with titles and (legend) how to read them; (h, w, 3) RGB."""
        titles = [(column.title, column.subtitle) for column in self.columns]
        return draw_sheet(self.job, titles, dict(self.panels() if panels is None else panels), legend)

    def record(self) -> dict[str, Any]:
        """Where everything comes from; JSON's types alone."""
        job = self.job
        people = [
            {
                "score": round(float(p.score), 6),
                "box": np.round(p.box.astype(float), 3).tolist(),
                "keypoints2d": np.round(p.keypoints.astype(float), 3).tolist(),
                "visible_joints": int((observed_confidence(job, i) > 0).sum()),
            }
            for i, p in enumerate(job.people)
        ]
        return {
            "schema": SCHEMA,
            "dpmesh": _version(),
            "source": job.source,
            "source_sha256": job.sha256,
            "image_size": list(job.image.rgb.shape[:2]),
            "K": np.round(job.K, 6).tolist(),
            "focal_source": job.focal_source,
            "people_from": self.people_from,
            "people": people,
            "columns": [
                column.record()
                | {
                    "provenance": scene.weights.get("provenance", {}),
                    "body": scene.weights.get("body", "free body"),
                    "fallbacks": dict(scene.fallbacks),
                    "notes": list(scene.notes),
                }
                for column, scene in zip(self.columns, self.scenes, strict=True)
            ],
        }

    def save(
        self,
        out: str | Path,
        name: str | None = None,
        size: int = SIDE,
        crop: bool = False,
        panels: bool = False,
        overwrite: bool = False,
        asked: Mapping[str, Any] | None = None,
        legend: bool = True,
    ) -> Path:
        """Write `out/name/` (name: the image's stem), whole or not at all: sheet.png, comparison.json and, with
        `panels`, every panel as a PNG of its own. Returns the folder.

        asked: kept in the JSON, for `is_of`. A folder that holds anything but a comparison is never replaced.
        Raises OutputError.
        """
        out, name = Path(out), name or Path(self.job.source).stem or "comparison"
        refuse_foreign(out / name, overwrite)
        drawn = self.panels(size, crop)
        files = {SHEET: png(self.sheet(drawn, legend))}
        if panels:
            files |= {f"{part}.png": png(image) for part, image in drawn.items()}
        record = self.record() | {
            "size": size,
            "crop": crop,
            "legend": legend,
            "files": sorted(files),
            "asked": dict(asked or {}),
        }
        return _write(out, name, files, record)


def compare(
    columns: Sequence[Column],
    image: ImageSource,
    options: PredictOptions = _DEFAULTS,
    only_image: bool = True,
    inputs: Sequence[str] = (),
) -> Comparison:
    """Detect the people of one image once, and predict their bodies with every column.

    image: a path, a PIL image or an RGB array. only_image: no other image is processed, so a keypoint file that names
    no image belongs to this one. inputs: paths of all images that are processed. Raises InputError.
    """
    if not columns:
        raise InputError("nothing to compare", where="columns")
    job = prepare_image(columns[0].predictor.detector, image, options, only_image, inputs)
    supplied = [
        f"{name} of the user" for name in ("keypoints", "boxes") if getattr(options, name) is not None
    ]
    scenes = tuple(predict_prepared(column.predictor, job) for column in columns)
    return Comparison(job, tuple(columns), scenes, " and ".join(supplied) or "detector")


def stored_record(folder: Path) -> dict[str, Any] | None:
    """The record of a folder that holds a whole comparison and nothing else; None for any other folder."""
    record = _own_record(folder)
    if (
        record is None
        or record.get("pending")
        or not all((folder / file).is_file() for file in record["files"])
    ):
        return None
    return record


def _own_record(folder: Path) -> dict[str, Any] | None:
    """The record of a folder that holds only files of a comparison, complete or interrupted; None for any other."""
    try:
        record = read_json(folder / RECORD, 2**26, OutputError)
        inside = os.listdir(folder)
    except (DPMeshError, OSError):
        return None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        return None
    named = [record.get("files"), record.get("pending", [])]
    if not all(isinstance(names, list) and all(map(_is_own, names)) for names in named):
        return None  # a record from elsewhere cannot name a file of the user's
    own = {RECORD, *named[0], *named[1]}
    return record if all(_belongs(name, own) for name in inside) else None


def _is_own(name: object) -> bool:
    """Whether a file of this name may be written, and removed, for a comparison."""
    return isinstance(name, str) and (name == RECORD or _FILE.fullmatch(name) is not None)


def _belongs(name: str, own: Collection[str]) -> bool:
    return name in (*own, LOCK, STAGING, CLAIM) or any(is_part(name, file) for file in own)


def _write(out: Path, name: str, files: Mapping[str, bytes], record: Mapping[str, Any]) -> Path:
    """A new folder appears whole or not at all. An old comparison's files are exchanged while its record names them as
    pending, so that a run which is killed there is finished by the next one."""
    target = out / name
    final = {**files, RECORD: _json(record)}
    try:
        if os.path.lexists(target) and (os.listdir(target) or target.is_symlink()):
            with folder_lock(target, "comparison"):
                _exchange(target, final, record)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with staging_folder(staging_path(target), _is_own) as part:
            write_files(part, final)
            os.rename(part, target)
            _tidy(target)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"cannot be written ({reason(error)})", where=str(target), fix="Choose another --out."
        ) from error
    return target


def _exchange(target: Path, files: Mapping[str, bytes], record: Mapping[str, Any]) -> None:
    before = _own_record(target)
    if before is None:
        raise OutputError("other runs are writing here", where=str(target), fix="Wait for them.")
    old = {*before["files"], *before.get("pending", [])} - {RECORD}
    pending = sorted({*old, *files} - {RECORD})
    unfinished = {"schema": SCHEMA, "source": record["source"], "files": [], "pending": pending}
    atomic_write(target / RECORD, _json(unfinished))
    for left in os.listdir(target):
        if any(is_part(left, file) for file in (RECORD, *pending)):
            (target / left).unlink()
    for file, data in files.items():
        if file != RECORD:
            atomic_write(target / file, data)
    for file in old - set(files):
        (target / file).unlink(missing_ok=True)
    atomic_write(target / RECORD, files[RECORD])
    _tidy(target)


def _tidy(target: Path) -> None:
    for name in (CLAIM, LOCK):
        with suppress(OSError):  # still held: no other process writes here
            (target / name).unlink()


def _json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(dict(record), indent=1, allow_nan=False) + "\n").encode()


def refuse_foreign(folder: Path, overwrite: bool) -> None:
    """Raise OutputError for what is no comparison, and for a whole one without `overwrite`. An empty folder is free."""
    refuse_staging(staging_path(folder), _is_own)
    if not os.path.lexists(folder):
        return
    empty = folder.is_dir() and not folder.is_symlink() and not os.listdir(folder)
    if empty:
        return
    if folder.is_symlink() or _own_record(folder) is None:
        raise OutputError(
            "holds something else, left as it is", where=str(folder), fix="Choose another --out."
        )
    refuse_foreign_lock(folder)
    if not overwrite and stored_record(folder) is not None:
        raise OutputError(
            "holds another comparison", where=str(folder), fix="Use --overwrite, or choose another --out."
        )


def is_of(folder: Path, sha256: str, asked: Mapping[str, Any]) -> bool:
    """Whether a stored comparison is of this image and of just these options."""
    record = stored_record(folder)
    return record is not None and record.get("source_sha256") == sha256 and record.get("asked") == dict(asked)


def _version() -> str:
    try:
        return version("dpmesh")
    except PackageNotFoundError:
        return "unknown"
