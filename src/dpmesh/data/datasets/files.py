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
from jaxtyping import Float64
from numpy.typing import NDArray

from dpmesh import io
from dpmesh.data.annotation import invertible
from dpmesh.data.fits import FitBodies
from dpmesh.errors import InputError

Array = NDArray[np.float64]


LARGEST = 1e9
"""Larger numbers are no measurement, in whatever unit, and leave no room for float32."""


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


def read_json(path: Path) -> Any:
    """Raises InputError where it is missing or is no JSON."""
    try:
        return io.read_json(path)
    except InputError as error:
        raise InputError(
            error.what, where=error.where, fix="docs/guide/data.md says where it comes from."
        ) from None


def numbers(value: Any, *shape: int, where: str) -> Float64[Array, "..."]:
    """An array of the shape (-1: any length); raises InputError for anything else, NaN and infinity."""
    try:
        out = np.asarray(value, np.float64).reshape(shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"expected {'×'.join(map(str, shape))} numbers ({error})", where=where) from None
    if not np.isfinite(out).all():
        raise InputError("NaN or infinity among the numbers", where=where)
    if (np.abs(out) > LARGEST).any():
        raise InputError("a number is beyond anything measured", where=where)
    return out


def camera(focal: Any, centre: Any, where: str) -> Float64[Array, "3 3"]:
    """K of a set's two focal lengths and principal point, px."""
    (fx, fy), (cx, cy) = numbers(focal, 2, where=where), numbers(centre, 2, where=where)
    K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    if not invertible(K):
        raise InputError(f"a camera of focal lengths {fx:g} and {fy:g} px cannot be inverted", where=where)
    return K


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
    """The lists of a COCO-style file; raises InputError where one is missing."""
    content = read_json(path)
    missing = [n for n in names if not isinstance(content, dict) or not isinstance(content.get(n), list)]
    if missing:
        raise InputError(f"the list {missing[0]!r} is missing", where=str(path))
    return [content[n] for n in names]
