"""`dpmesh train CONFIG.toml [--check] [--set.NAME VALUE ...]` and `dpmesh train --list-settings`."""

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


class ListSettings(argparse.Action):
    """Print every setting and end, whatever else is on the command line."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_values: object, **_options: object) -> None:
        from dpmesh.train.config_file import list_settings

        for line in list_settings():
            say(line)
        parser.exit()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="settings of the run (see configs/)")
    parser.add_argument(
        CHECK,
        action="store_true",
        help="train nothing: print how long the run is and what it needs, and list everything that is missing",
    )
    parser.add_argument(
        "--list-settings",
        action=ListSettings,
        help="print every setting of a CONFIG.toml with its meaning, range and default",
    )
    parser.add_argument(
        "rest",
        nargs=argparse.REMAINDER,
        metavar="--set.NAME VALUE",
        help="change a setting: --set.out DIR, --set.losses.betas 0.1, --set.student.steps 10 (a stage's)",
    )


def run(args: argparse.Namespace) -> int:
    from dpmesh.train.config_file import read_settings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    for noisy in ("lightning", "lightning_fabric"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    check = args.check or CHECK in args.rest
    settings = read_settings(args.config, changes([word for word in args.rest if word != CHECK]))
    return check_training(settings) if check else run_training(settings)


def run_training(settings: "Settings") -> int:
    """Train and print the folder of the weights; the exit status."""
    from dpmesh.train.distributed import RAISED_BY_ALL
    from dpmesh.train.trainer import train

    try:
        weights = train(settings)
    except DPMeshError as error:
        if RAISED_BY_ALL in getattr(error, "__notes__", ()):  # another process prints the same line
            return 1
        raise
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        say(f"weights: {weights}")
    return 0


def check_training(settings: "Settings") -> int:
    """Print what the run is and what it lacks; the exit status, 1 where something is missing."""
    import torch

    from dpmesh.train.preflight import check_settings

    world = settings.processes
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    report = check_settings(settings, world=world, here=world, device=device)
    for line in report.lines:
        say(line)
    for problem in report.problems:
        say("missing: " + " ".join(str(problem).split()))
    if report.problems:
        say(f"{len(report.problems)} things are missing; nothing was trained")
        return 1
    say("everything is there")
    return 0


def changes(words: list[str]) -> dict[str, Any]:
    """`--set.out DIR --set.student.steps 3` as a dictionary; values are read as TOML, else as strings."""
    from dpmesh.train.config_file import read_value

    values: dict[str, Any] = {}
    while words:
        name, equals, value = words[0].partition("=")
        rest = words[1:]
        if not equals:
            value, rest = (rest[0] if rest else ""), rest[1:]
        if not name.startswith(PREFIX) or (not equals and len(words) < 2):
            raise ConfigError(
                f"{words[0]!r} is not understood",
                fix="Change settings by --set.NAME VALUE; dpmesh train --list-settings shows them.",
            )
        values[name.removeprefix(PREFIX)] = read_value(value)
        words = rest
    return values
