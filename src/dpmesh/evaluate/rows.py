"""One row for each evaluated person, stored as plain arrays; parts of a run, written whole or not at all."""

import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, Shaped

from dpmesh.body.files import load_npz
from dpmesh.errors import InputError, OutputError


@dataclass(frozen=True, eq=False)
class Rows:
    """index: place in the source. Errors in millimetres, NaN for a failure (metrics.py) or where the protocol does not
    have the measure. joint, joint_pa: per measured joint, NaN where the truth was not measured. seen: as Persons.
    fallbacks: of the persons and the run, all together."""

    index: Int64[np.ndarray, " n"]
    ids: Shaped[np.ndarray, " n"]
    sequences: Shaped[np.ndarray, " n"]
    mpjpe: Float[np.ndarray, " n"]
    pa_mpjpe: Float[np.ndarray, " n"]
    mpve: Float[np.ndarray, " n"]
    joint: Float[np.ndarray, "n j"]
    joint_pa: Float[np.ndarray, "n j"]
    seen: Float[np.ndarray, "n j"]
    failed: Shaped[np.ndarray, " n"]
    fallbacks: Counter[str] = field(default_factory=Counter[str])

    def __len__(self) -> int:
        return len(self.index)


ARRAYS = tuple(f.name for f in fields(Rows) if f.name != "fallbacks")


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Parts in the order of `index`."""
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    order = np.argsort(joined["index"], kind="stable")
    total = sum((part.fallbacks for part in parts), Counter[str]())
    return Rows(**{name: array[order] for name, array in joined.items()}, fallbacks=total)


def save(path: Path, rows: Rows, header: Mapping[str, Any]) -> None:
    """An .npz without pickles, aside and renamed. header: what the rows belong to. Raises OutputError."""
    buffer = io.BytesIO()
    about = json.dumps({"header": dict(header), "fallbacks": dict(rows.fallbacks)})
    np.savez(buffer, about=np.array(about), **{name: getattr(rows, name) for name in ARRAYS})
    write_aside(path, buffer.getvalue())


def load(path: Path) -> tuple[Rows, dict[str, Any]]:
    """The rows and their header; raises InputError for a file that is not one of ours."""
    arrays = load_npz(path)
    try:
        about = json.loads(str(arrays["about"]))
        rows = Rows(
            **{name: arrays[name] for name in ARRAYS},  # pyright: ignore[reportArgumentType]
            fallbacks=Counter(about["fallbacks"]),
        )
        return rows, dict(about["header"])
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"these are no rows of an evaluation ({error})", where=str(path), fix="Delete the file."
        ) from error


def write_aside(path: Path, data: bytes) -> None:
    """The file appears whole or not at all; of two processes that write it the later one stays."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(data)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OutputError(
            f"cannot be written ({error.strerror})", where=str(path), fix="Choose another --out."
        ) from error
