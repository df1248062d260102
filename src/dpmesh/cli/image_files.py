"""Files of a verb on images: what it reads besides them, and what must not be overwritten."""

import argparse
import os
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from dpmesh.errors import InputError, OutputError


def check_keypoints(args: argparse.Namespace) -> None:
    """Raise InputError where --keypoints names nothing."""
    if args.keypoints is not None and not os.path.exists(args.keypoints):
        raise InputError("no such file or folder", where=args.keypoints, fix="Check the path.")


def input_files(args: argparse.Namespace) -> list[str]:
    """Existing files and folders that a verb reads besides the images."""
    named = (
        args.keypoints, args.boxes, args.body, args.regressors, args.weights, args.pose_model, args.person_model,
        getattr(args, "corrections", None),
    )  # fmt: skip
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


@contextmanager
def removed_if_empty(out: Path) -> Generator[None]:
    """Removes `out` and the folders above it again that the block has created and left empty."""
    new = [folder for folder in (out, *out.parents) if not os.path.lexists(folder)]
    try:
        yield
    finally:
        with suppress(OSError):
            for folder in new:
                folder.rmdir()


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
