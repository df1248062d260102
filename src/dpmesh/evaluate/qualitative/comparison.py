"""The same people of an image through every column, and the result as files.

from dpmesh.evaluate.qualitative.columns import open_columns
from dpmesh.evaluate.qualitative.comparison import compare
compare(open_columns(["embedded", "runs/mine"], ["network", "flip"]), "photo.jpg").save("out")
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from dpmesh.errors import DPMeshError, InputError, OutputError
from dpmesh.evaluate.qualitative.columns import Column
from dpmesh.evaluate.qualitative.figure import SIDE, Panel, draw_panels, draw_sheet, observed_confidence
from dpmesh.io import atomic_write, read_json, reason
from dpmesh.pipeline.folder import png
from dpmesh.pipeline.given import Given
from dpmesh.pipeline.images import MAX_PIXELS
from dpmesh.pipeline.job import Job, Source, read_job
from dpmesh.pipeline.scene import Scene

SCHEMA = "dpmesh.comparison/1"
SHEET, RECORD = "sheet.png", "comparison.json"


@dataclass(frozen=True, eq=False)
class Comparison:
    """scenes: of each column the same people in the same order. people_from: "detector", or what the user supplied."""

    job: Job
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
            "image_size": list(job.picture.rgb.shape[:2]),
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
        files[RECORD] = (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()
        return _write(out, name, files)


def compare(
    columns: Sequence[Column],
    image: Source,
    keypoints: Given = None,
    boxes: Given = None,
    focal: float | None = None,
    fov: float | None = None,
    max_people: int | None = None,
    max_pixels: int = MAX_PIXELS,
    only_image: bool = True,
    keypoint_format: str | None = None,
) -> Comparison:
    """Everybody in one image, detected once and given to every column alike; arguments as of `Predictor.__call__`.

    only_image: no other image is in play (which entry of a keypoint file is meant). Raises InputError.
    """
    if not columns:
        raise InputError("nothing to compare", where="columns")
    detector = columns[0].predictor.detector
    job = read_job(
        detector, image, keypoints, boxes, focal, fov, max_people, max_pixels, only_image, keypoint_format
    )
    used = [f"{n} of the user" for n, v in (("keypoints", keypoints), ("boxes", boxes)) if v is not None]
    scenes = tuple(column.predictor.predict_job(job) for column in columns)
    return Comparison(job, tuple(columns), scenes, " and ".join(used) or "detector")


def stored_record(folder: Path) -> dict[str, Any] | None:
    """Of a folder that holds a comparison and nothing else; None for any other."""
    try:
        found = read_json(folder / RECORD, 2**26, OutputError)
        inside = {path.name for path in folder.iterdir()}
    except (DPMeshError, OSError):
        return None
    if (
        not isinstance(found, dict)
        or found.get("schema") != SCHEMA
        or not isinstance(found.get("files"), list)
    ):
        return None
    return found if inside == {RECORD, *map(str, found["files"])} else None


def _write(out: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """A new folder appears whole or not at all; an old comparison's files are exchanged, its record last."""
    target = out / name
    try:
        if os.path.lexists(target):
            before = stored_record(target) or {}
            (target / RECORD).unlink(missing_ok=True)  # killed here, the folder is no comparison
            for file in set(map(str, before.get("files", []))) - set(files):
                (target / file).unlink(missing_ok=True)
            for file, data in sorted(files.items(), key=lambda item: item[0] == RECORD):
                atomic_write(target / file, data)
            return target
        out.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".dpmesh-", suffix=".part", dir=out))
        try:
            for file, data in files.items():
                atomic_write(aside / file, data)
            aside.chmod(0o777 & ~_umask())
            os.rename(aside, target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)  # made here, with a name that nobody else has
            raise
    except (OSError, ValueError) as error:
        raise OutputError(
            f"cannot be written ({reason(error)})", where=str(target), fix="Choose another --out."
        ) from error
    return target


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def refuse_foreign(folder: Path, overwrite: bool) -> None:
    """Raise OutputError for what is no comparison, and for a comparison without `overwrite`."""
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or stored_record(folder) is None:
        raise OutputError(
            "holds something else, left as it is", where=str(folder), fix="Choose another --out."
        )
    if not overwrite:
        raise OutputError(
            "holds another comparison", where=str(folder), fix="Use --overwrite, or choose another --out."
        )


def is_of(folder: Path, sha256: str, asked: Mapping[str, Any]) -> bool:
    """Whether a stored comparison is of this image and of just these options."""
    found = stored_record(folder)
    return found is not None and found.get("source_sha256") == sha256 and found.get("asked") == dict(asked)


def _version() -> str:
    try:
        return version("dpmesh")
    except PackageNotFoundError:
        return "unknown"
