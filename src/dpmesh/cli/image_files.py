"""Files of a verb on images: its input images, the names of its result folders, and what must not be overwritten."""

import argparse
import os
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dpmesh.errors import DPMeshError, InputError, OutputError


def find_images(inputs: Sequence[str], failed: dict[str, str] | None = None) -> list[Path]:
    """The files named, and the images of the folders named, sorted by name; each once.

    failed: receives the inputs without any image (an empty name, a folder that cannot be read or has no image) -> why.
    Raises InputError for such an input if `failed` is None, or if it is the only one.
    """
    found: list[Path] = []
    for name in inputs:
        try:
            found += _images_of(name)
        except DPMeshError as error:
            if failed is None or len(inputs) == 1:
                raise
            failed[name] = str(error)
    unique: dict[str, Path] = {}
    for path in found:
        unique.setdefault(os.path.abspath(path), path)
    return list(unique.values())


def _images_of(name: str) -> list[Path]:
    from dpmesh.decode import SUFFIXES
    from dpmesh.io import reason

    if not name:
        raise InputError("an empty name", where="INPUT", fix="Name images, or folders of images.")
    path = Path(name)
    if not os.path.isdir(path):  # also what is no path at all: reading it raises
        return [path]
    try:
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and os.path.isfile(p))
    except OSError as error:
        raise InputError(f"the folder cannot be read ({reason(error)})", where=name) from None
    if not inside:
        raise InputError("the folder has no image", where=name)
    return inside


def check_keypoints(args: argparse.Namespace) -> None:
    """Raise InputError where --keypoints names nothing."""
    if args.keypoints is not None and not os.path.exists(args.keypoints):
        raise InputError("no such file or folder", where=args.keypoints, fix="Check the path.")


def result_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A folder name per image: its stem; its whole name where stems are equal; numbered where those are equal too.

    Names count as equal that are one file on some file system: upper and lower case, composed and decomposed letters.
    """
    from dpmesh.inference.result_folder import folder_name

    stems = {path: folder_name(path.name) or "image" for path in paths}
    counts = Counter(map(_folded, stems.values()))
    taken: set[str] = set()
    names: dict[Path, str] = {}
    for path, stem in stems.items():
        base = stem if counts[_folded(stem)] == 1 or not path.name.strip(".") else path.name
        name, number = base, 1
        while _folded(name) in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(_folded(name))
        names[path] = name
    return names


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def input_files(args: argparse.Namespace) -> list[str]:
    """Existing files and folders that a verb reads besides the images."""
    named = (args.keypoints, args.boxes, args.body, args.regressors, args.weights)
    return [name for name in named if name is not None and os.path.exists(name)]


def parents_of(inputs: Iterable[str | Path]) -> dict[str, str]:
    """The real path of each input and of all folders above it -> the input."""
    parents: dict[str, str] = {}
    for path in inputs:
        here = os.path.realpath(path)
        while here not in parents:
            parents[here] = str(path)
            here = os.path.dirname(here)
    return parents


def refuse_input_in(target: Path, parents: Mapping[str, str]) -> None:
    """Raise OutputError for a result folder that is an input or contains one. parents: of `parents_of`."""
    place = os.path.realpath(target)
    if place in parents:
        name = parents[place]
        what = "is itself an input" if os.path.realpath(name) == place else f"holds the input {name}"
        raise OutputError(what, where=str(target), fix="It stays as it is: choose another --out.")


def check_writable(out: Path) -> None:
    """Create the folder, and raise OutputError if no file can be written in it."""
    from dpmesh.io import reason

    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out, prefix=".dpmesh-"):
            pass
    except (OSError, ValueError) as error:
        raise OutputError(
            f"cannot be written ({reason(error)})", where=str(out), fix="Choose another --out."
        ) from None
