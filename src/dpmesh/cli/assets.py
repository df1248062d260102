"""`dpmesh assets import FILE...` and `dpmesh assets doctor`: import the user's licensed files, and list them."""

import argparse
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dpmesh.cli.streams import say
from dpmesh.errors import DPMeshError, InputError, OutputError

MOST_FILES = 10_000
"""Of a folder to import from."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="import|doctor")
    bring = actions.add_parser(
        "import", help="copy files into the asset folder, where every verb finds them", allow_abbrev=False
    )
    bring.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="files, or folders to search; recognised by content, not by name",
    )
    bring.add_argument(
        "--gender",
        choices=("neutral", "male", "female"),
        default="",
        help="gender of an SMPL file whose name does not contain it",
    )
    bring.add_argument(
        "--overwrite", action="store_true", help="replace a different file that was imported before"
    )
    actions.add_parser(
        "doctor", help="list the files: which are imported, what they are for, where to get the others"
    )


def run(args: argparse.Namespace) -> int:
    return _doctor() if args.action == "doctor" else _import(args)


def _import(args: argparse.Namespace) -> int:
    """0: something was imported, now or before, and no file failed. A file that fails does not stop the others."""
    from dpmesh.body.identify import recognise

    imported, failed = 0, False
    for path, named in _files(args.paths):
        try:
            if isinstance(path, DPMeshError):
                raise path
            asset = recognise(path, args.gender)
            if asset is not None and asset.asset:
                say(f"{_shown(path)}: {asset.what} → {_copy(path, asset.asset, args.overwrite)}")
                imported += 1
            elif asset is not None:
                say(f"{_shown(path)}: {asset.what}", error=True)
                failed |= named
            elif named:
                raise InputError("not a file that can be imported", where=str(path))
        except (DPMeshError, OSError) as error:
            say(f"dpmesh: {' '.join(str(error).split())}", error=True)
            failed = True
    if not imported and not failed:
        raise InputError(
            "no file to import",
            where=", ".join(map(str, args.paths)),
            fix="dpmesh assets doctor lists the files and where to get them.",
        )
    return 1 if failed else 0


def _files(paths: list[Path]) -> Iterator[tuple[Path | DPMeshError, bool]]:
    """(file, or the error of a path; whether the user named it, rather than its folder)."""
    for path in paths:
        if not os.path.exists(path):  # never raises, however long the name
            yield InputError("no such file or folder", where=str(path)), True
            continue
        if not path.is_dir():
            yield path, True
            continue
        inside = (file for file in sorted(path.rglob("*")) if os.path.isfile(file) and not file.is_symlink())
        for count, file in enumerate(inside):
            if count == MOST_FILES:
                where = str(path)
                yield (
                    InputError(
                        f"the folder has more than {MOST_FILES} files", where=where, fix="Name files."
                    ),
                    True,
                )
                break
            yield file, False


def _shown(path: Path) -> str:
    """A path as text; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _copy(source: Path, name: str, overwrite: bool) -> Path:
    from dpmesh.assets import USER_ASSETS, asset_folder, find_asset, sha256
    from dpmesh.io import atomic_path, open_regular

    with open_regular(source) as file:
        zipped = file.read(2) == b"PK"
    asset = USER_ASSETS[name]
    suffix = asset.suffixes[-1] if zipped else asset.suffixes[0]
    target, before = asset_folder() / (asset.place + suffix), find_asset(name)
    if before is not None and sha256(before) == sha256(source):
        return before
    if before is not None and not overwrite:
        raise OutputError(
            f"another file was imported as {name}", where=str(before), fix="Use --overwrite to replace it."
        )
    with atomic_path(target) as part:
        shutil.copyfile(source, part)
    if before is not None and before != target:
        before.unlink()  # the same asset in its other format
    return target


def _doctor() -> int:
    """1 where an imported file is damaged or is another file than its name means."""
    from dpmesh.assets import FOLDER_VARIABLE, USER_ASSETS, asset_folder, find_asset
    from dpmesh.body.identify import recognise

    failed = False
    say(f"folder: {asset_folder()} (set ${FOLDER_VARIABLE} for another)")
    say("")
    for asset in USER_ASSETS.values():
        path = find_asset(asset.name)
        state, note = "missing", f"get it from {asset.source}; then: dpmesh assets import FILE"
        if path is not None:
            state, note = "imported", str(path)
            try:
                content = recognise(path)
                if content is None or content.asset != asset.name:
                    state = "wrong"
                    what = content.what if content else "another file"
                    note = f"{path} is {what}; import the right one with --overwrite"
            except DPMeshError as error:
                state, note = "damaged", f"{error} Import it again, with --overwrite."
        elif not asset.needed:
            state = "missing (optional)"
        failed |= state in ("wrong", "damaged")
        for line in (f"{asset.name}: {state}", f"  for {asset.unlocks}", f"  {note}"):
            say(line)
    say("")
    say(
        "Not imported but converted (docs/guide/weights.md): a released DPMesh checkpoint (dpmesh convert released),"
        " Stable Diffusion 1.5 and ControlNet (dpmesh convert sd15)."
    )
    return 1 if failed else 0
