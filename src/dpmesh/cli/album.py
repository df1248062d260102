"""What a command on images reads and where its results go: files, names of folders, what must not be touched."""

import argparse
import os
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dpmesh.errors import DPMeshError, InputError, OutputError


def find_pictures(inputs: Sequence[str], failed: dict[str, str] | None = None) -> list[Path]:
    """The files named, and the pictures of the folders named, by name; each once.

    failed: takes the inputs that give none (an empty name, a folder that cannot be read or holds no picture) -> why.
    Raises InputError for such an input without it, and where no input gives a picture.
    """
    found: list[Path] = []
    for given in inputs:
        try:
            found += _pictures_of(given)
        except DPMeshError as error:
            if failed is None or len(inputs) == 1:
                raise
            failed[given] = str(error)
    unique: dict[str, Path] = {}
    for path in found:
        unique.setdefault(os.path.abspath(path), path)
    return list(unique.values())


def _pictures_of(given: str) -> list[Path]:
    from dpmesh.inference.images import SUFFIXES
    from dpmesh.io import reason

    if not given:
        raise InputError("an empty name", where="INPUT", fix="Give images, or folders of images.")
    path = Path(given)
    if not os.path.isdir(path):  # also what is no path at all: reading it says so
        return [path]
    try:
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and os.path.isfile(p))
    except OSError as error:
        raise InputError(f"the folder cannot be read ({reason(error)})", where=given) from None
    if not inside:
        raise InputError("the folder holds no picture", where=given)
    return inside


def name_results(paths: Sequence[Path]) -> dict[Path, str]:
    """A folder name for each picture: its stem; its whole name where stems meet; numbered if those meet.

    Names meet that some file system takes for one: upper and lower case, composed and decomposed letters.
    """
    from dpmesh.inference.result_folder import folder_name

    stems = {path: folder_name(path.name) or "image" for path in paths}
    counts = Counter(map(_folded, stems.values()))
    taken: set[str] = set()
    result: dict[Path, str] = {}
    for path, stem in stems.items():
        base = stem if counts[_folded(stem)] == 1 or not path.name.strip(".") else path.name
        name, number = base, 1
        while _folded(name) in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(_folded(name))
        result[path] = name
    return result


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def files_of(args: argparse.Namespace) -> list[str]:
    """What is read besides the images."""
    named = (args.keypoints, args.boxes, args.body, args.regressors, args.weights)
    return [name for name in named if name is not None and os.path.exists(name)]


def places_of(inputs: Iterable[str | Path]) -> dict[str, str]:
    """Where the inputs lie: each file and all folders above it, by their real paths -> the input."""
    places: dict[str, str] = {}
    for path in inputs:
        here = os.path.realpath(path)
        while here not in places:
            places[here] = str(path)
            here = os.path.dirname(here)
    return places


def refuse_input_in(target: Path, places: Mapping[str, str]) -> None:
    """A result's folder may neither be an input nor hold one, whoever wrote it. Raises OutputError."""
    place = os.path.realpath(target)
    if place in places:
        given = places[place]
        what = "is itself an input" if os.path.realpath(given) == place else f"holds the input {given}"
        raise OutputError(what, where=str(target), fix="It stays as it is: choose another --out.")


def check_writable(out: Path) -> None:
    from dpmesh.io import reason

    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out, prefix=".dpmesh-"):
            pass
    except (OSError, ValueError) as error:
        raise OutputError(
            f"cannot be written ({reason(error)})", where=str(out), fix="Choose another --out."
        ) from None
