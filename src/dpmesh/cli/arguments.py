"""Arguments that several verbs share.

Those of a prediction have their defaults and help from `inference.options`. Nothing heavy is imported, so that --help
and errors in the arguments come at once.
"""

import argparse
import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from dpmesh.inference.option_docs import option_docs
from dpmesh.inference.options import MAX_PIXELS, ModelOptions, PredictOptions


def add_people(parser: argparse.ArgumentParser) -> None:
    """Where the people of an image come from."""
    for name in ("keypoints", "format", "boxes", "max_people", "max_pixels", "keep_unposed"):
        add_option(parser, PredictOptions, name)
    for name in ("fast", "pose_model", "person_model"):
        add_option(parser, ModelOptions, name)


def add_recursive(parser: argparse.ArgumentParser) -> None:
    """Whether folders are searched at any depth."""
    parser.add_argument(
        "--recursive", action="store_true", help="folders below INPUT too; results keep them: DIR/sub/a/..."
    )


def add_camera(parser: argparse.ArgumentParser) -> None:
    """Focal length or field of view, and roll."""
    either = parser.add_mutually_exclusive_group()
    for name in ("focal", "fov"):
        add_option(either, PredictOptions, name)
    add_option(parser, PredictOptions, "roll")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Weights, body and device."""
    add_option(parser, ModelOptions, "weights")
    add_body(parser)
    add_device(parser)


def add_body(parser: argparse.ArgumentParser) -> None:
    """The body of weights that need one."""
    for name in ("body", "regressors"):
        add_option(parser, ModelOptions, name)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Device and threads."""
    for name in ("device", "threads"):
        add_option(parser, ModelOptions, name)


def add_persons(parser: argparse.ArgumentParser) -> None:
    """Of an evaluation: where its persons come from, and how many per forward pass."""
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        metavar="ROOT",
        help="folder of the data sets (3DPW/, OH3D/, Panoptic/); for synthocc a folder to cache images in",
    )
    add("--batch", type=count, default=16, metavar="N", help="persons per forward pass (default: 16)")


def add_option(parser: "argparse._ActionsContainer", kind: type, name: str) -> None:
    """One field of an options class: its flag, with the field's default and the first paragraph of its docstring."""
    default = next(field.default for field in fields(kind) if field.name == name)
    text = " ".join(option_docs(kind)[name].split("\n\n")[0].split()).removesuffix(".").replace("%", "%%")
    text = text[:1].lower() + text[1:] if text[1:2].islower() else text
    flag = _FLAGS.get(name, name).replace("_", "-")
    if default is True:
        parser.add_argument(f"--no-{flag}", dest=name, action="store_false", help=f"do not {text}")
    elif default is False:
        parser.add_argument(f"--{flag}", action="store_true", help=text)
    else:
        shown = "120 million" if default == MAX_PIXELS else default
        text += "" if default is None else f" (default: {shown})"
        parser.add_argument(f"--{flag}", dest=name, default=default, help=text, **_SYNTAX[name])


def model_options(args: argparse.Namespace, **changes: Any) -> ModelOptions:
    """Of the parsed arguments; those that a verb does not have keep their defaults."""
    return ModelOptions(**_values(args, ModelOptions) | changes)


def predict_options(args: argparse.Namespace) -> PredictOptions:
    """Of the parsed arguments; those that a verb does not have keep their defaults."""
    return PredictOptions(**_values(args, PredictOptions))


def _values(args: argparse.Namespace, kind: type) -> dict[str, Any]:
    return {field.name: getattr(args, field.name) for field in fields(kind) if hasattr(args, field.name)}


def split_settings(words: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Of the words of a command line, those without `--set.NAME VALUE` or `--set.NAME=VALUE`, and (NAME, VALUE).

    main does this for a verb whose module has TAKES_SETTINGS; args.settings are the pairs. A missing value is empty.
    """
    rest: list[str] = []
    settings: list[tuple[str, str]] = []
    following = iter(words)
    for word in following:
        if not word.startswith("--set."):
            rest.append(word)
            continue
        name, equals, value = word.removeprefix("--set.").partition("=")
        settings.append((name, value if equals else next(following, "")))
    return rest, settings


def folder(text: str) -> Path:
    """A folder to write to. An empty name would mean the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name; write . for this folder")
    return Path(text)


def _number(text: str, kind: type[float] | type[int], least: float, below: float) -> float:
    """A number in (least, below); raises argparse's error otherwise."""
    try:
        value = float(kind(text))
    except ValueError:
        value = math.nan
    if not least < value < below:
        wanted = "a whole number above" if kind is int else "a number above"
        bound = "" if math.isinf(below) else f" and below {below:g}"
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted} {least:g}{bound}")
    return value


def device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a device; choose of auto, cpu, cuda, cuda:1, mps")
    return text


def positive(text: str) -> float:
    return _number(text, float, 0.0, math.inf)


def angle(text: str) -> float:
    return _number(text, float, 0.0, 180.0)


def roll(text: str) -> float:
    return _number(text, float, -180.0, 180.0)


def count(text: str) -> int:
    return int(_number(text, int, 0.0, math.inf))


_FLAGS = {"format": "keypoint_format"}
"""Option -> its flag, where that is another name."""
_SYNTAX: dict[str, dict[str, Any]] = {
    "keypoints": {"metavar": "FILE|DIR"},
    "format": {"metavar": "NAME"},
    "boxes": {"metavar": "FILE|TEXT"},
    "max_people": {"metavar": "N", "type": count},
    "max_pixels": {"metavar": "N", "type": count},
    "hypotheses": {"metavar": "N", "type": count},
    "corrections": {"metavar": "FILE"},
    "focal": {"metavar": "PX", "type": positive},
    "fov": {"metavar": "DEG", "type": angle},
    "roll": {"metavar": "DEG", "type": roll},
    "weights": {"metavar": "NAME|DIR"},
    "body": {"metavar": "FILE"},
    "regressors": {"metavar": "DIR"},
    "pose_model": {"metavar": "FILE"},
    "person_model": {"metavar": "FILE"},
    "device": {"metavar": "auto|cpu|cuda|cuda:1|mps", "type": device},
    "threads": {"metavar": "N", "type": count},
}
"""Option -> how argparse reads it."""
