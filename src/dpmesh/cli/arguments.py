"""Arguments that several verbs share. Nothing heavy is imported, so that --help and wrong arguments answer at once."""

import argparse
import math
from pathlib import Path


def add_people(parser: argparse.ArgumentParser) -> None:
    """Whom to look at in a picture."""
    add = parser.add_argument
    add(
        "--keypoints",
        metavar="FILE|DIR",
        help="2D keypoints instead of the detector's: a file of any common tool, or a folder with one for each image",
    )
    add(
        "--keypoint-format",
        metavar="NAME",
        help="its format or joint order, where the file does not tell it (docs: Your own keypoints)",
    )
    add("--boxes", metavar="FILE", help='people\'s boxes instead: JSON, or "x1,y1,x2,y2;..." px')
    add(
        "--max-people",
        type=count,
        default=20,
        metavar="N",
        help="the N surest people of a picture (default: 20)",
    )
    add("--max-pixels", type=count, metavar="N", help="refuse larger pictures (default: 120 million)")
    add("--fast", action="store_true", help="one quick pass of the detector: at most six people")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which model, with which body, on what."""
    add = parser.add_argument
    add(
        "--weights",
        default="embedded",
        metavar="NAME|DIR",
        help="shipped weights or a folder (default: embedded)",
    )
    add(
        "--body",
        metavar="FILE",
        help="your SMPL body (.pkl, .npz) for weights that need one (default: the imported one)",
    )
    add("--regressors", metavar="DIR", help="its J_regressor_*.npy (default: the imported ones)")
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """On what."""
    add = parser.add_argument
    add("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="auto: CUDA if there is one")
    add("--threads", type=count, default=1, metavar="N", help="CPU threads (default: 1)")


def folder(text: str) -> Path:
    """A place to write to. An empty one would be the folder where the user happens to be."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name; write . for this folder")
    return Path(text)


def add_persons(parser: argparse.ArgumentParser) -> None:
    """Of an evaluation: where its persons come from, and how many at once."""
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        metavar="ROOT",
        help="holds the data sets (3DPW/, OH3D/, Panoptic/); of synthocc a folder to keep pictures in",
    )
    add("--batch", type=count, default=16, metavar="N", help="persons at once (default: 16)")


def _number(text: str, kind: type[float] | type[int], least: float, below: float) -> float:
    """A number in (least, below), or argparse's error that says so."""
    try:
        value = float(kind(text))
    except ValueError:
        value = math.nan
    if not least < value < below:
        wanted = "a whole number above" if kind is int else "a number above"
        bound = "" if math.isinf(below) else f" and below {below:g}"
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted} {least:g}{bound}")
    return value


def positive(text: str) -> float:
    return _number(text, float, 0.0, math.inf)


def angle(text: str) -> float:
    return _number(text, float, 0.0, 180.0)


def count(text: str) -> int:
    return int(_number(text, int, 0.0, math.inf))
