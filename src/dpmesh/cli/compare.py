"""`dpmesh compare IMAGE... --weights A --weights B --out DIR`: models side by side on the same people."""

import argparse
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpmesh.cli.album import find_pictures, name_results
from dpmesh.cli.arguments import add_device, add_people, angle, count, folder, positive
from dpmesh.cli.streams import flush_stdout, say
from dpmesh.errors import DPMeshError, InputError

if TYPE_CHECKING:
    from dpmesh.evaluate.qualitative.columns import Column

METHODS = ("network", "flip", "refine", "fit", "lifter", "blank", "t-pose")
_EPILOG = """\
methods: network, the model · flip, in two passes, image and mirror image · refine, its bodies then fitted to the
keypoints · fit, fitted to the keypoints without a network · lifter, keypoints alone · blank, image black · t-pose
dpmesh compare photos --weights embedded --weights runs/mine --out sheets
dpmesh compare a.jpg --method network flip refine --out sheets"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("inputs", nargs="+", metavar="IMAGE", help="images, or folders of images")
    add(
        "--out",
        type=folder,
        required=True,
        metavar="DIR",
        help="a.jpg becomes DIR/a/sheet.png; DIR/index.html shows all",
    )
    add("--weights", action="append", metavar="NAME|DIR", help="a column; repeat it (default: embedded)")
    add(
        "--label",
        action="append",
        default=[],
        metavar="TEXT",
        help="a column's title: one for each --weights",
    )
    add(
        "--method",
        nargs="+",
        action="extend",
        choices=METHODS,
        metavar="METHOD",
        help="each for every weights: network, flip, refine, fit, lifter, blank, t-pose (default: network)",
    )
    add_people(parser)
    add(
        "--body", metavar="FILE", help="your SMPL body, for weights that need one (default: the imported one)"
    )
    add("--regressors", metavar="DIR", help="its J_regressor_*.npy (default: the imported ones)")
    add_device(parser)
    add("--no-turn", action="store_true", help="do not detect twice where a person leans or lies")
    lens = parser.add_mutually_exclusive_group()
    lens.add_argument("--focal", type=positive, metavar="PX", help="focal length, pixels of the image")
    lens.add_argument("--fov", type=angle, metavar="DEG", help="field of view across the image's width")
    add("--crop", action="store_true", help="show only what is around the people")
    add("--size", type=_size, default=600, metavar="PX", help="side of a panel, 200 to 1600 (default: 600)")
    add(
        "--no-legend",
        action="store_true",
        help="leave out the text on how to read a sheet (a caption says it)",
    )
    add("--panels", action="store_true", help="write every panel as a PNG of its own as well")
    add("--overwrite", action="store_true", help="make again what DIR already holds")
    parser.set_defaults(refuse=parser.error)


def run(args: argparse.Namespace) -> int:
    """0: all images done; 1: some could not be read or written."""
    weights = list(dict.fromkeys(args.weights or ["embedded"]))
    if args.label and len(args.label) != len(weights):
        args.refuse(f"--label: {len(args.label)} labels for {len(weights)} weights")
    if args.keypoints is not None and not os.path.exists(args.keypoints):
        raise InputError("no such file or folder", where=args.keypoints, fix="Check the path.")
    bad: dict[str, str] = {}
    names, out = name_results(find_pictures(args.inputs, bad)), Path(args.out)

    from dpmesh.evaluate.qualitative.columns import open_columns
    from dpmesh.evaluate.qualitative.page import refuse_foreign_page, write_page

    refuse_foreign_page(out)
    columns = open_columns(
        weights,
        args.method or ("network",),
        args.label,
        args.device,
        args.threads,
        args.fast,
        args.body,
        args.regressors,
        not args.no_turn,
    )
    asked = _asked(args, columns)
    failed: dict[str, str] = {}
    for path, name in names.items():
        try:
            say(f"{path}: {_one(path, out, name, columns, asked, args, len(names) == 1)}")
            flush_stdout()
        except DPMeshError as error:
            failed[str(path)] = str(error)
    done = len(names) - len(failed)
    failed = bad | failed
    if done:
        say(f"{done} of {len(names)} compared → {write_page(out, tuple(names.values()), failed)}")
    for message in failed.values():
        say("dpmesh: " + " ".join(message.split()), error=True)
    return 1 if failed else 0


def _one(
    path: Path,
    out: Path,
    name: str,
    columns: "Sequence[Column]",
    asked: Mapping[str, Any],
    args: argparse.Namespace,
    alone: bool,
) -> str:
    """Compare on one image and write it; returns what to say. Raises DPMeshError."""
    from dpmesh.evaluate.qualitative.comparison import compare, is_of, refuse_foreign
    from dpmesh.inference.images import MAX_PIXELS
    from dpmesh.io import read_bytes

    folder = out / name
    if not args.overwrite and folder.is_dir():
        digest = hashlib.sha256(read_bytes(path)).hexdigest()
        if is_of(folder, digest, asked):
            return f"done before, kept (--overwrite makes it again) → {folder}"
    refuse_foreign(folder, args.overwrite)  # before anything is computed for it
    found = compare(
        columns,
        path,
        keypoints=args.keypoints,
        keypoint_format=args.keypoint_format,
        boxes=args.boxes,
        focal=args.focal,
        fov=args.fov,
        max_people=args.max_people,
        max_pixels=args.max_pixels or MAX_PIXELS,
        only_image=alone,
    )
    found.save(out, name, args.size, args.crop, args.panels, args.overwrite, asked, not args.no_legend)
    people = {0: "no person detected", 1: "1 person"}.get(
        len(found.job.people), f"{len(found.job.people)} people"
    )
    return f"{people} × {len(columns)} → {folder}"


def _asked(args: argparse.Namespace, columns: "Sequence[Column]") -> dict[str, Any]:
    """What decides a sheet besides its image: the columns and the options, files by their checksums."""
    from dpmesh.assets import sha256

    options = (
        "keypoint_format",
        "max_people",
        "max_pixels",
        "fast",
        "no_turn",
        "focal",
        "fov",
        "crop",
        "size",
        "no_legend",
        "panels",
    )
    asked: dict[str, Any] = {name: getattr(args, name) for name in options}
    for name in ("keypoints", "boxes", "body"):
        value = getattr(args, name)
        asked[name] = sha256(Path(value)) if value is not None and _is_file(value) else value
    return asked | {"regressors": args.regressors, "columns": [column.record() for column in columns]}


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # boxes may be given as text, longer than a name may be
        return False


def _size(text: str) -> int:
    value = count(text)
    if not 200 <= value <= 1600:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 200 and 1600")
    return value
