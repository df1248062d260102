"""A bench's folder: whether the report that is there is ours, and the one that is asked for."""

import os
from pathlib import Path
from typing import Any

from dpmesh.errors import DPMeshError, InputError
from dpmesh.evaluate.registry import data_files, entry
from dpmesh.evaluate.robustness.bench import FORMAT, Bench
from dpmesh.evaluate.robustness.report import JSON, PAGE
from dpmesh.evaluate.runner import Job, weights_record
from dpmesh.evaluate.schema import ANY, COUNT, NUMBER, STRING, Each, Maybe, require
from dpmesh.io import read_json

LARGEST = 256 * 2**20
"""Bytes of a robustness.json."""
_POINT = {"severity": NUMBER, "MPJPE": Maybe(NUMBER), "PA-MPJPE": Maybe(NUMBER), "failures": COUNT}
_SHAPE = {
    "format": COUNT,
    "made of": Each(ANY),
    "protocol": {"name": STRING, "title": STRING, "hash": STRING},
    "persons": {"measured": COUNT, "found": COUNT, "left_out": Each(COUNT), "map": COUNT},
    "models": [{"name": STRING, "sha256": STRING}],
    "corruptions": [{"name": STRING, "title": STRING, "unit": STRING, "models": [[_POINT]]}],
    "map": Maybe({"grid": COUNT, "box": NUMBER, "joints": [STRING], "models": [[[[Maybe(NUMBER)]]]]}),
}
_AGAIN = "Choose another --out, or --overwrite."


def made_of(bench: Bench) -> dict[str, Any]:
    """What decides a report, by the names that an error tells; no picture is read for it."""
    measured = entry(bench.protocol)
    jobs = [Job(protocol=bench.protocol, out=Path(), weights=weights) for weights in bench.weights]
    records = [weights_record(job) for job in jobs]
    files = None if bench.data is None else data_files(measured, bench.data)
    return {
        "protocol": [measured.protocol.full_name, measured.protocol.hash],
        "weights": [[one["sha256"], one["config_sha256"]] for one in records],
        "data": files,
        "persons": [bench.persons, bench.map_persons],
        "grid": [bench.grid, bench.box],
        "corruptions": [one.name for one in bench.corruptions],
    }


def kept(bench: Bench, folder: Path, overwrite: bool) -> dict[str, Any] | None:
    """The finished report of this very bench, if it is there. Raises InputError for a file that is not ours, and for
    another bench's report without `overwrite`."""
    path = folder / JSON
    if not os.path.lexists(path):
        if os.path.lexists(folder / PAGE):
            raise InputError(
                "was not written by dpmesh bench", where=str(folder / PAGE), fix="Choose another --out."
            )
        return None
    try:
        found = read_json(path, LARGEST)
        ours = isinstance(found, dict) and {"format", "corruptions", "models"} <= set(found)
    except DPMeshError:
        ours, found = False, {}
    if not ours:
        raise InputError("was not written by dpmesh bench", where=str(path), fix="Choose another --out.")
    if overwrite:
        return None
    if found["format"] != FORMAT or "made of" not in found:
        raise InputError(
            "this report is of an earlier version, which does not tell what it was made of",
            where=str(path),
            fix=_AGAIN,
        )
    require(found, _SHAPE, str(path), _AGAIN)
    asked = made_of(bench)
    if differs := [name for name, value in asked.items() if found["made of"].get(name) != value]:
        raise InputError(
            f"the report that is there was made with other {' and '.join(differs)}",
            where=str(path),
            fix=_AGAIN,
        )
    return found
