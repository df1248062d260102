"""Settings of a user's model: what its graph does not hold, from a TOML file with the model's name."""

import math
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8

from dpmesh.errors import ConfigError, InputError
from dpmesh.inference.keypoints.formats import JOINT_ORDERS
from dpmesh.inference.options import settings_file
from dpmesh.inference.user_models.onnx_file import UserModel
from dpmesh.io import read_bytes
from dpmesh.skeletons import Skeleton, named_skeleton

Colour = Literal["rgb", "bgr"]
_LARGEST_TOML = 2**20
_LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Normalisation:
    """Of pixels 0 to 255: (x - mean) / std for each channel, in the order of `colour`."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    colour: Colour

    def __call__(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
        """Of RGB pixels."""
        ordered = pixels if self.colour == "rgb" else pixels[..., ::-1]
        return (ordered.astype(np.float32) - np.asarray(self.mean, np.float32)) / np.asarray(
            self.std, np.float32
        )


def read_settings(model: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """Key -> value of the model's TOML file, checked; empty where there is no file.

    Raises InputError, ConfigError for a file that cannot be read, an unknown key or a wrong value.
    """
    path = settings_file(model)
    if not os.path.isfile(path):
        return {}
    try:
        content = tomllib.loads(read_bytes(path, _LARGEST_TOML).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        line = " ".join(str(error).split())[:100]
        raise ConfigError(f"is not TOML ({line})", where=str(path)) from None
    settings: dict[str, Any] = {}
    for key, value in content.items():
        if key not in keys:
            raise ConfigError(f"unknown key {key!r}", where=str(path), fix=f"Known: {', '.join(keys)}.")
        check, wanted = _CHECKS[key]
        if not check(value):
            raise ConfigError(f"{key} must be {wanted}", where=str(path))
        settings[key] = value
    return settings


def unknown_convention(model: Path, what: str, *keys: str) -> ConfigError:
    """The error for a model whose conventions its graph does not determine; names the keys to write.

    The values are examples.
    """
    examples = "; ".join(f"{key} = {_EXAMPLES[key]}" for key in keys)
    name = settings_file(model).name
    return ConfigError(
        what, where=str(model), fix=f"Write into {name}, with the values of its training: {examples}."
    )


def normalisation(
    model: UserModel, settings: Mapping[str, Any], default: Normalisation | None
) -> Normalisation:
    """From the settings; keys that they lack from the default. Raises ConfigError if that is not known either."""
    missing = [key for key in ("mean", "std", "colour") if key not in settings]
    if missing and default is None:
        first = model.first_operator or "nothing"
        what = f"its normalisation is unknown: the graph begins with {first} on {model.dtype}"
        raise unknown_convention(model.path, what, *missing)
    known = {} if default is None else vars(default)
    mean, std, colour = (settings.get(key, known.get(key)) for key in ("mean", "std", "colour"))
    return Normalisation(_triple(mean), _triple(std), colour)


def input_size(model: UserModel, settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height of the model's input; None if neither graph nor settings fix them. Raises ConfigError."""
    chosen = tuple(settings["input_size"]) if "input_size" in settings else None
    if chosen and model.fixed_size and chosen != model.fixed_size:
        width, height = model.fixed_size
        raise ConfigError(
            f"input_size is [{chosen[0]}, {chosen[1]}], the model's input is {width} wide and {height} high",
            where=str(settings_file(model.path)),
        )
    size = chosen or model.fixed_size
    if size and not all(1 < side <= _LARGEST_SIDE for side in size):
        raise InputError(f"its input has {size[0]}×{size[1]} pixels", where=str(model.path))
    return size


def joint_order(value: "str | list[str]", where: str) -> Skeleton:
    """The joint set of a name of JOINT_ORDERS (also coco17), or of a list of joint names. Raises ConfigError."""
    if not isinstance(value, str):
        return named_skeleton(value, where)
    order = JOINT_ORDERS.get("coco" if value == "coco17" else value)
    if order is None:
        raise ConfigError(
            f"unknown joint order {value!r}", where=where, fix=f"Known: coco17, {', '.join(JOINT_ORDERS)}."
        )
    return order


def _triple(values: Any) -> tuple[float, float, float]:
    a, b, c = map(float, values)
    return a, b, c


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _three(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))  # pyright: ignore[reportUnknownArgumentType]


_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "input_size": (
        lambda v: isinstance(v, list) and len(v) == 2 and all(type(s) is int and s > 1 for s in v),  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        "width and height in pixels, such as [192, 256]",
    ),
    "mean": (_three, "three numbers for pixels 0 to 255"),
    "std": (lambda v: _three(v) and min(v) > 0, "three positive numbers for pixels 0 to 255"),
    "colour": (lambda v: v in ("rgb", "bgr"), '"rgb" or "bgr"'),
    "padding": (lambda v: _is_number(v) and 0.5 <= v <= 4, "a number from 0.5 to 4"),
    "decode": (lambda v: v in ("heatmap", "simcc"), '"heatmap" or "simcc"'),
    "udp": (lambda v: isinstance(v, bool), "true or false"),
    "joints": (
        lambda v: isinstance(v, str) or (isinstance(v, list) and all(isinstance(j, str) for j in v)),  # pyright: ignore[reportUnknownVariableType]
        "the name of a joint order, or a list of joint names",
    ),
    "score_max": (lambda v: _is_number(v) and v > 0, "a positive number"),
    "min_score": (lambda v: _is_number(v) and 0 < v < 1, "a number between 0 and 1"),
    "person_class": (lambda v: type(v) is int and v >= 0, "a class number"),
}
"""Key -> whether a value is valid, and what it must be."""
_EXAMPLES = {
    "input_size": "[WIDTH, HEIGHT]", "mean": "[123.675, 116.28, 103.53]", "std": "[58.395, 57.12, 57.375]",
    "colour": '"rgb"', "joints": '"coco17"', "decode": '"simcc"',
}  # fmt: skip
