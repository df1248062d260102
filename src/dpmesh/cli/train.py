"""`dpmesh train CONFIG.toml [--set.NAME VALUE ...]`."""

import argparse
import logging
from pathlib import Path
from typing import Any

from dpmesh.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="what to train (see configs/)")
    parser.add_argument(
        "rest", nargs=argparse.REMAINDER, metavar="--set.NAME VALUE", help="change a top-level setting"
    )


def run(args: argparse.Namespace) -> int:
    from dpmesh.train.loop import train
    from dpmesh.train.settings import read_settings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("lightning").setLevel(logging.WARNING)
    settings = read_settings(args.config, changes(args.rest))
    print(f"weights: {train(settings)}")
    return 0


def changes(words: list[str]) -> dict[str, Any]:
    """`--set.out DIR --set.seed 3` as a dictionary; numbers become numbers."""
    found: dict[str, Any] = {}
    while words:
        if not words[0].startswith("--set.") or len(words) < 2:
            raise ConfigError(f"{words[0]!r} is not understood", fix="Change settings by --set.NAME VALUE.")
        found[words[0].removeprefix("--set.")] = _number(words[1])
        words = words[2:]
    return found


def _number(word: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
