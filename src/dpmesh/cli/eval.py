"""`dpmesh eval run|list|compare|table`: evaluate models on published benchmarks (versioned protocols)."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from dpmesh.cli.arguments import add_model, add_option, add_persons, count, folder
from dpmesh.cli.compare import METHODS
from dpmesh.inference.options import ModelOptions

_EPILOG = """\
dpmesh eval list                             the protocols
dpmesh eval run 3dpw 3dpw-oc --data ROOT --out DIR --weights WEIGHTS
dpmesh eval run synthocc synthocc@detector --out DIR   a generated set; --data: a cache
dpmesh eval run synthocc-video --people 24 --out DIR   the first 12 of 60 clips, two people each
dpmesh eval run SHARDS --out DIR             your own people, a folder that dpmesh data pack wrote
dpmesh eval compare A/3dpw B/3dpw            paired differences of two results of one protocol
dpmesh eval table DIR/*                      the paper's tables with rows for these results
docs/guide/evaluation.md describes the protocols and the layout of the data."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    actions = parser.add_subparsers(metavar="ACTION", required=True, title="actions")
    _explain_unknown_action(parser)

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=text, description=f"{text.capitalize()}.", allow_abbrev=False)
        action.set_defaults(run=run, refuse=action.error)
        return action

    _add_run(add("run", _evaluate, "evaluate a model, or a baseline, on one or more protocols"))
    add("list", _list, "list the protocols")
    compare = add("compare", _compare, "compare two results of one protocol person by person")
    compare.add_argument("first", type=Path, metavar="A", help="a result: its folder or result.json")
    compare.add_argument("second", type=Path, metavar="B", help="another result of the same protocol")
    compare.add_argument("--json", type=Path, metavar="FILE", help="also write the comparison to this file")
    table = add("table", _table, "print the paper's tables with rows for these results")
    table.add_argument(
        "results", nargs="+", type=Path, metavar="RESULT", help="folders or result.json files of results"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "protocols",
        nargs="+",
        metavar="PROTOCOL|SHARDS",
        help="protocols of dpmesh eval list, or folders of shards",
    )
    add(
        "--out",
        type=folder,
        required=True,
        metavar="DIR",
        help="DIR/PROTOCOL/ gets result.json, result.md, rows.npz, worst/",
    )
    add_persons(parser)
    add_model(parser)
    for name in ("pose_model", "person_model"):
        add_option(parser, ModelOptions, name)
    add(
        "--method",
        default="network",
        choices=(*METHODS, "frame-wise", "gaussian"),
        help="what is evaluated: the model, or a baseline on the same people; of synthocc-video dpmesh video,"
        " frame-wise or gaussian (default: network)",
    )
    add(
        "--processes",
        type=count,
        default=1,
        metavar="N",
        help="processes to run in (default: 1; or use torchrun)",
    )
    add(
        "--people",
        type=count,
        metavar="N",
        help="evaluate the first N people only; the result is marked as partial",
    )
    add("--save-every", type=count, default=256, metavar="N", help="people between saves (default: 256)")
    add("--overwrite", action="store_true", help="run again, and replace an existing result")


def _explain_unknown_action(parser: argparse.ArgumentParser) -> None:
    """A protocol in place of an action gets an error that names the full command."""
    error = parser.error

    def explain(message: str) -> NoReturn:
        if unknown := re.match(r"argument ACTION: invalid choice: '(.+?)' \(", message):
            word = unknown[1]
            error(f"{word!r} is not an action (run, list, compare, table); use: {parser.prog} run {word}")
        error(message)

    parser.error = explain


def run(args: argparse.Namespace) -> int:
    return int(args.run(args))


def _evaluate(args: argparse.Namespace) -> int:
    from dpmesh.evaluate.checks import one_line
    from dpmesh.evaluate.evaluation import EvaluationConfig
    from dpmesh.evaluate.registry import entry
    from dpmesh.evaluate.report import markdown, read
    from dpmesh.evaluate.runner import run_evaluation

    names = list(dict.fromkeys(args.protocols))
    for name in names:
        entry(name)  # reports a misspelt name before the first evaluation
    configs = [
        EvaluationConfig(
            protocol=name,
            out=args.out,
            data=args.data,
            weights=args.weights,
            body=args.body,
            regressors=args.regressors,
            method=args.method,
            device=args.device,
            threads=args.threads,
            batch=args.batch,
            limit=args.people,
            part=args.save_every,
            pose_model=args.pose_model,
            person_model=args.person_model,
        )
        for name in names
    ]
    if len({config.folder for config in configs}) < len(configs):
        return int(
            args.refuse("two folders of shards have the same name: run them with a different --out each")
        )
    for config in configs:
        path = run_evaluation(config, args.processes, args.overwrite)
        if path is not None:
            print(markdown(read(path)))
            print(f"→ {one_line(path.parent)}")
    return 0


def _list(args: argparse.Namespace) -> int:
    from dpmesh.evaluate.registry import register

    rows = [("protocol", "set", "2D keypoints", "truth", "published persons", "hash")]
    for name, registered in register().items():
        protocol = registered.protocol
        truth = "measured joints" if protocol.truth.gender == "none" else f"{protocol.truth.gender} body"
        persons = "–" if protocol.persons is None else f"{protocol.persons:,}"
        rows.append((name, protocol.title, protocol.keypoints.source, truth, persons, protocol.hash))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _compare(args: argparse.Namespace) -> int:
    import json

    from dpmesh.evaluate.compare import compare, refuse_foreign, text
    from dpmesh.io import atomic_write

    if args.json is not None:
        refuse_foreign(args.json)
    comparison = compare(args.first, args.second)
    print(text(comparison))
    if args.json is not None:
        atomic_write(args.json, json.dumps(comparison, indent=1, allow_nan=False) + "\n")
    return 0


def _table(args: argparse.Namespace) -> int:
    from dpmesh.evaluate.report import read
    from dpmesh.evaluate.tables import tables

    print(tables([read(path) for path in args.results]))
    return 0
