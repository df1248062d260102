"""`dpmesh compare IMAGE... --weights A --weights B --out DIR`: predictions of several models side by side."""

import argparse
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpmesh.cli.arguments import (
    add_body,
    add_camera,
    add_device,
    add_option,
    add_people,
    add_recursive,
    count,
    folder,
    model_options,
    predict_options,
)
from dpmesh.cli.image_files import check_keypoints
from dpmesh.cli.streams import flush_stdout, say
from dpmesh.errors import DPMeshError
from dpmesh.inference.options import MAX_PIXELS, ModelOptions, user_model_record

if TYPE_CHECKING:
    from dpmesh.evaluate.qualitative.columns import Column

METHODS = ("network", "flip", "refine", "fit", "lifter", "blank", "t-pose")
_EPILOG = """\
methods:
  network  the model
  flip     the model with test-time flip: mean of two passes, image and mirror image
  refine   flip, its bodies then refined with the 2D keypoints, as dpmesh predict does
  fit      bodies fitted to the 2D keypoints, without a network
  lifter   the model's estimate from 2D keypoints alone
  blank    the model on a black image
  t-pose   the mean body, not posed

examples:
  dpmesh compare photos --weights embedded --weights runs/mine --out sheets
  dpmesh compare a.jpg --method network flip refine --out sheets"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="IMAGE",
        help="image files, folders of images, or lists of paths (.txt, -)",
    )
    add_recursive(parser)
    add(
        "--out",
        type=folder,
        required=True,
        metavar="DIR",
        help="folder for the results: that of a.jpg is DIR/a/sheet.png; DIR/index.html shows all",
    )
    add(
        "--weights",
        action="append",
        metavar="NAME|DIR",
        help="model weights of a column: a shipped name or a folder; may be repeated (default: embedded)",
    )
    add("--label", action="append", default=[], metavar="TEXT", help="column title; one per --weights")
    add(
        "--method",
        nargs="+",
        action="extend",
        choices=METHODS,
        metavar="METHOD",
        help="methods to run with each --weights, see below (default: network)",
    )
    add_people(parser)
    add_body(parser)
    add_device(parser)
    add_option(parser, ModelOptions, "rotated_detection")
    add_camera(parser)
    add("--crop", action="store_true", help="show only the part of the image with the people")
    add("--size", type=_size, default=600, metavar="PX", help="side of a panel, 200 to 1600 (default: 600)")
    add("--no-legend", action="store_true", help="leave out the text that explains a sheet")
    add("--panels", action="store_true", help="also write every panel as a PNG of its own")
    add("--overwrite", action="store_true", help="compute and replace results that DIR already has")
    parser.set_defaults(refuse=parser.error)


def run(args: argparse.Namespace) -> int:
    """0: all images done; 1: some could not be read or written."""
    weights = args.weights or ["embedded"]
    if not args.label:  # the same weights twice are two columns only under two titles
        weights = list(dict.fromkeys(weights))
    if args.label and len(args.label) != len(weights):
        args.refuse(f"--label: {len(args.label)} labels for {len(weights)} weights")
    check_keypoints(args)
    out = Path(args.out)

    from dpmesh.evaluate.qualitative.columns import open_columns
    from dpmesh.evaluate.qualitative.page import refuse_foreign_page, write_page
    from dpmesh.inference.image_list import list_images, result_names

    listing = list_images(args.inputs, recursive=args.recursive, skip=out)
    names, unusable = result_names(listing.images), listing.unusable
    if listing.skipped_text:
        say(listing.skipped_text, error=True)

    refuse_foreign_page(out)
    options = model_options(args, weights=weights[0], refine=False)
    columns = open_columns(weights, args.method or ("network",), args.label, options)
    asked = _asked(args, columns)
    failed, inputs = dict[str, str](), [str(path) for path in names]
    for path, name in names.items():
        try:
            say(f"{path}: {_one(path, out, name, columns, asked, args, inputs)}")
            flush_stdout()
        except DPMeshError as error:
            failed[str(path)] = str(error)
    done = len(names) - len(failed)
    failed = unusable | failed
    if done:
        say(f"{done} of {len(names)} compared → {write_page(out, tuple(names.values()), failed)}")
    for message, images in Counter(failed.values()).items():  # one line for each cause
        count = f" ({images} images)" if images > 1 else ""
        say("dpmesh: " + " ".join(message.split()) + count, error=True)
    return 1 if failed else 0


def _one(
    path: Path,
    out: Path,
    name: str,
    columns: "Sequence[Column]",
    asked: Mapping[str, Any],
    args: argparse.Namespace,
    inputs: Sequence[str],
) -> str:
    """Compare on one image and write the sheet. Returns a line for the user. Raises DPMeshError."""
    from dpmesh.evaluate.qualitative.comparison import compare, is_of, refuse_foreign
    from dpmesh.io import read_bytes

    folder = out / name
    if not args.overwrite and folder.is_dir():
        digest = hashlib.sha256(read_bytes(path)).hexdigest()
        if is_of(folder, digest, asked):
            return f"done before, kept (--overwrite makes it again) → {folder}"
    refuse_foreign(folder, args.overwrite)  # before anything is computed for it
    comparison = compare(columns, path, predict_options(args), len(inputs) == 1, inputs)
    comparison.save(out, name, args.size, args.crop, args.panels, args.overwrite, asked, not args.no_legend)
    detected = len(comparison.job.people)
    people = {0: "no person detected", 1: "1 person"}.get(detected, f"{detected} people")
    return f"{people} × {len(columns)} → {folder}"


def _asked(args: argparse.Namespace, columns: "Sequence[Column]") -> dict[str, Any]:
    """What a sheet depends on besides its image: the columns and the options, files by their checksums."""
    from dpmesh.assets import sha256

    names = ("max_people", "fast", "focal", "fov", "crop", "size", "no_legend", "panels")
    asked: dict[str, Any] = {"keypoint_format": args.format}
    asked |= {name: getattr(args, name) for name in names}
    asked["max_pixels"] = None if args.max_pixels == MAX_PIXELS else args.max_pixels
    asked["no_turn"] = not args.rotated_detection
    for name in ("keypoints", "boxes", "body"):
        value = getattr(args, name)
        asked[name] = sha256(Path(value)) if value is not None and _is_file(value) else value
    asked["keep_unposed"] = args.keep_unposed
    if args.roll is not None:
        asked["roll"] = args.roll
    for name in ("pose_model", "person_model"):
        if getattr(args, name) is not None:
            asked[name] = user_model_record(getattr(args, name))
    return asked | {"regressors": args.regressors, "columns": [column.record() for column in columns]}


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # boxes as text may be longer than a file name can be
        return False


def _size(text: str) -> int:
    value = count(text)
    if not 200 <= value <= 1600:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 200 and 1600")
    return value
