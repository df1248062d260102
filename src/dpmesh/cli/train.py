"""`dpmesh train CONFIG.toml [--check] ... [--set.NAME VALUE ...]`."""

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpmesh.cli.streams import say
from dpmesh.errors import ConfigError, DPMeshError

if TYPE_CHECKING:
    from dpmesh.train.config import Settings

PREFIX = "--set."
CHECK = "--check"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="what to train (see configs/)")
    parser.add_argument(
        CHECK,
        action="store_true",
        help="train nothing: tell how long the run is and what it needs, and list everything that is missing",
    )
    parser.add_argument(
        "rest",
        nargs=argparse.REMAINDER,
        metavar="--set.NAME VALUE",
        help="change a setting: --set.out DIR, --set.losses.betas 0.1, --set.student.steps 10 (a stage's)",
    )


def run(args: argparse.Namespace) -> int:
    from dpmesh.train.config import read_settings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    for noisy in ("lightning", "lightning_fabric"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    check = args.check or CHECK in args.rest
    settings = read_settings(args.config, changes([word for word in args.rest if word != CHECK]))
    return _check(settings) if check else _train(settings)


def _train(settings: "Settings") -> int:
    from dpmesh.train.together import TOLD
    from dpmesh.train.trainer import train

    try:
        weights = train(settings)
    except DPMeshError as error:
        if TOLD in getattr(error, "__notes__", ()):  # another process prints the same line
            return 1
        raise
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        say(f"weights: {weights}")
    return 0


def _check(settings: "Settings") -> int:
    """1 where something is missing."""
    import torch

    from dpmesh.train.preflight import examine

    world = settings.processes
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = examine(settings, world=world, here=world, device=device)
    for line in found.lines:
        say(line)
    for problem in found.problems:
        say("missing: " + " ".join(str(problem).split()))
    if found.problems:
        say(f"{len(found.problems)} things are missing; nothing was trained")
        return 1
    say("everything is there")
    return 0


def changes(words: list[str]) -> dict[str, Any]:
    """`--set.out DIR --set.student.steps 3` as a dictionary; values as TOML has them, else as strings."""
    from dpmesh.train.config import read_value

    found: dict[str, Any] = {}
    while words:
        name, equals, value = words[0].partition("=")
        rest = words[1:]
        if not equals:
            value, rest = (rest[0] if rest else ""), rest[1:]
        if not name.startswith(PREFIX) or (not equals and len(words) < 2):
            raise ConfigError(f"{words[0]!r} is not understood", fix="Change settings by --set.NAME VALUE.")
        found[name.removeprefix(PREFIX)] = read_value(value)
        words = rest
    return found
