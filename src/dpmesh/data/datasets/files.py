"""Annotation files: JSON that is read with an error that names the file, and folders in either layout."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (JSON has no types)

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmesh.data.fits import FitBodies
from dpmesh.fields import read_json, rows

Array = NDArray[np.float64]

WHERE_FROM = "docs/guide/data.md says where it comes from."


@dataclass(frozen=True)
class ReadRequest:
    """What an adapter is request: the set's folder, the split, the bodies of its fits (None: joints alone).

    dropped: counts, by reason, what the adapter leaves out.  fit_err: of CrowdPose's fits, keep "all", those
    "below" 5 or those "above" (crowdpose.py).  benchmark_sequences: keep the sequences of 3DPW that are tested on.
    """

    folder: Path
    split: str
    bodies: FitBodies | None = None
    fit_err: str = "all"
    benchmark_sequences: bool = False
    dropped: Counter[str] = field(default_factory=Counter[str])


def first_folder(root: Path, *names: str) -> Path:
    """The first of the folders that exists below root; the last one if none does."""
    for name in names:
        if os.path.isdir(root / name):  # False also for what no path may be
            return root / name
    return root / names[-1]


def by_image(annotations: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    """Annotations of each image, in the order of the file."""
    out: dict[int, list[Mapping[str, Any]]] = {}
    for annotation in annotations:
        out.setdefault(int(annotation["image_id"]), []).append(annotation)
    return out


def listed(path: Path, *names: str) -> list[Any]:
    """The lists of a COCO-style file. Raises InputError where the file or a list is missing."""
    content = read_json(path, WHERE_FROM)
    return [rows(content, name, str(path)) for name in names]
