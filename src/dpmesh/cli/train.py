"""`dpmesh train CONFIG.toml ... [--set.NAME VALUE ...]`."""

import argparse
import logging
from pathlib import Path
from typing import Any

from dpmesh.errors import ConfigError

PREFIX = "--set."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="what to train (see configs/)")
    parser.add_argument(
        "rest",
        nargs=argparse.REMAINDER,
        metavar="--set.NAME VALUE",
        help="change a setting: --set.out DIR, --set.losses.betas 0.1, --set.student.steps 10 (a stage's)",
    )


def run(args: argparse.Namespace) -> int:
    from dpmesh.train.loop import train
    from dpmesh.train.settings import read_settings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    for noisy in ("lightning", "lightning_fabric"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    settings = read_settings(args.config, changes(args.rest))
    print(f"weights: {train(settings)}")
    return 0


def changes(words: list[str]) -> dict[str, Any]:
    """`--set.out DIR --set.student.steps 3` as a dictionary; values as TOML has them, else as strings."""
    from dpmesh.train.settings import read_value

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
