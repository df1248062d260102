"""What a result depends on besides its image: options, and the files they name, known by their content.

Light to import: the command line compares them with an earlier result's before it loads a model.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpmesh.assets import find_asset, weights_folder
from dpmesh.errors import InputError, WeightsError
from dpmesh.io import open_regular, reason

if TYPE_CHECKING:
    import numpy as np

Options = Mapping[str, object]
"""Option -> plain JSON value; of a file its name and sha256."""

MAX_PEOPLE = 20

_FLAGS = {"turn": "--no-turn", "weights": "--weights"}
"""Where the command line's word is not the option's name with hyphens."""


def file_sha256(path: Path) -> str:
    """Hex digest of a regular file of any size; raises InputError."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def model_options(
    weights: str | Path = "embedded",
    body: str | Path | None = None,
    regressors: str | Path | None = None,
    fast: bool = False,
    refine: bool = False,
    turn: bool = True,
    flip: bool = False,
) -> dict[str, object]:
    """Arguments as of `Predictor.from_pretrained`. Raises InputError, WeightsError for a file that cannot be read."""
    folder = weights_folder(str(weights))
    stored = [folder / name for name in ("config.json", "model.safetensors")]
    if missing := [path.name for path in stored if not os.path.isfile(path)]:
        raise WeightsError(f"no weights of that name (no {missing[0]})", where=str(weights))
    return {
        "weights": _named(str(weights), *stored),
        "body": _body(weights, body, regressors),
        "fast": fast,
        "refine": refine,
        "turn": turn,
        "flip": flip,
    }


def image_options(
    keypoints: "str | Path | np.ndarray | None" = None,
    boxes: "str | Path | np.ndarray | None" = None,
    focal: float | None = None,
    fov: float | None = None,
    max_people: int | None = None,
    keypoint_format: str | None = None,
) -> dict[str, object]:
    """Arguments as of `Predictor.__call__`. Raises InputError for a file that cannot be read."""
    if isinstance(boxes, (str, Path)) and not os.path.isfile(boxes):
        people: object = str(boxes)  # the boxes themselves, as text
    else:
        people = _input(boxes)
    return {
        "keypoints": _input(keypoints),
        "keypoint_format": keypoint_format,
        "boxes": people,
        "focal": None if focal is None else float(focal),
        "fov": None if fov is None else float(fov),
        "max_people": MAX_PEOPLE if max_people is None else int(max_people),
    }


def differences(recorded: Options, wanted: Options) -> list[str]:
    """How the options differ, in words of the command line; empty where they do not."""
    told: list[str] = []
    for name in dict.fromkeys([*wanted, *recorded]):
        old, new = recorded.get(name), wanted.get(name)
        if _core(old) == _core(new):
            continue
        flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
        if name == "turn":
            old, new = not old, not new
        was, now = _words(old), _words(new)
        told.append(f"{flag} was {was}, is {now if now != was else 'a file of that name with other content'}")
    return told


def _input(given: "str | Path | np.ndarray | None") -> object:
    if given is None:
        return None
    if isinstance(given, (str, Path)):
        path = Path(given)
        return _folder(path) if os.path.isdir(path) else _named(path.name, path)
    return {
        "file": "an array",
        "sha256": hashlib.sha256(str(given.shape).encode() + given.tobytes()).hexdigest(),
    }


def _named(name: str, *files: Path) -> dict[str, Any]:
    """One digest for all the files."""
    digests = [file_sha256(path) for path in files]
    together = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return {"file": name, "sha256": together}


def _folder(path: Path) -> dict[str, Any]:
    """A folder with a file for each image: their names and contents."""
    try:
        files = sorted(p for p in path.iterdir() if os.path.isfile(p))
    except OSError as error:
        raise InputError(f"cannot be read ({reason(error)})", where=str(path)) from None
    listed = "".join(f"{p.name!r} {file_sha256(p)}\n" for p in files)
    return {"file": path.name, "sha256": hashlib.sha256(listed.encode()).hexdigest()}


def _body(weights: str | Path, body: str | Path | None, regressors: str | Path | None) -> object:
    """The body's files: those that the user names, or the imported ones where the weights need them."""
    if body is None and not os.path.isdir(weights):
        return None  # shipped weights: the free body
    from dpmesh.body.resolve import find_regressors, needs_body

    if body is None and not needs_body(weights):
        return None
    path = Path(body) if body is not None else find_asset("smpl_neutral")
    if path is None:
        raise InputError("the weights need a body", where=str(weights), fix="Give --body FILE.")
    rows = find_regressors(None if regressors is None else Path(regressors))
    return _named(path.name, path, *(rows[name] for name in sorted(rows)))


def _core(value: object) -> object:
    """What counts: of a file its content, not its name."""
    return value["sha256"] if isinstance(value, dict) and "sha256" in value else value


def _words(value: object) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict) and "file" in value:
        return str(value["file"])
    return (
        f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    )
