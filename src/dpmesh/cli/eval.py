"""`dpmesh eval PROTOCOL...`, and `list`, `compare`, `table`: published benchmarks, exactly stated."""

import argparse
from collections.abc import Callable
from pathlib import Path

from dpmesh.cli.arguments import add_model, add_persons, count, folder

_EPILOG = """\
dpmesh eval list                             the protocols
dpmesh eval 3dpw 3dpw-oc --data ROOT --out DIR --weights WEIGHTS
dpmesh eval synthocc synthocc@detector --out DIR   the set that is made here; --data: a cache
dpmesh eval SHARDS --out DIR                 your own people, a folder that dpmesh data pack has made
dpmesh eval compare A/3dpw B/3dpw            paired differences; refuses different protocols
dpmesh eval table DIR/*                      the paper's tables with these results beside
docs/evaluation.md says what each protocol does and how its data is laid out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add(
        "words", nargs="+", metavar="PROTOCOL|FOLDER", help="protocols; or list, compare A B, table RESULT..."
    )
    add(
        "--out",
        type=folder,
        metavar="DIR",
        help="DIR/PROTOCOL/ gets result.json, result.md, rows.npz, worst/",
    )
    add_persons(parser)
    add_model(parser)
    add(
        "--method",
        default="network",
        choices=("network", "t-pose", "lifter", "blank", "fit", "refine", "flip"),
        help="what is measured: the model, or a baseline on the same persons (default: network)",
    )
    add("--processes", type=count, default=1, metavar="N", help="share the persons (default: 1; or torchrun)")
    add("--limit", type=count, metavar="N", help="the first N persons only; the result is marked as partial")
    add("--save-every", type=count, default=256, metavar="N", help="persons between saves (default: 256)")
    add("--overwrite", action="store_true", help="make again what DIR already holds")
    add("--json", type=Path, metavar="FILE", help="compare: write the comparison there as well")
    parser.set_defaults(refuse=parser.error)


def run(args: argparse.Namespace) -> int:
    actions: dict[str, Callable[[argparse.Namespace, list[str]], int]] = {
        "list": _list,
        "compare": _compare,
        "table": _table,
    }
    first, *rest = args.words
    if first in actions:
        return actions[first](args, rest)
    return _evaluate(args)


def _evaluate(args: argparse.Namespace) -> int:
    out: Path | None = args.out
    if out is None:
        return int(args.refuse("--out DIR is needed"))
    from dpmesh.evaluate.names import line
    from dpmesh.evaluate.processes import evaluate_job
    from dpmesh.evaluate.registry import entry
    from dpmesh.evaluate.report import markdown, read
    from dpmesh.evaluate.runner import Job

    names = list(dict.fromkeys(args.words))
    for name in names:
        entry(name)  # a misspelt one is refused before the first is run
    jobs = [
        Job(
            protocol=name,
            out=out,
            data=args.data,
            weights=args.weights,
            body=args.body,
            regressors=args.regressors,
            method=args.method,
            device=args.device,
            threads=args.threads,
            batch=args.batch,
            limit=args.limit,
            part=args.save_every,
        )
        for name in names
    ]
    if len({job.folder for job in jobs}) < len(jobs):
        return int(args.refuse("two folders of records have one name: give each an --out of its own"))
    for job in jobs:
        path = evaluate_job(job, args.processes, args.overwrite)
        if path is not None:
            print(markdown(read(path)))
            print(f"→ {line(path.parent)}")
    return 0


def _list(args: argparse.Namespace, rest: list[str]) -> int:
    if rest:
        args.refuse("list takes nothing else")
    from dpmesh.evaluate.registry import register

    told = [("protocol", "set", "2D keypoints", "truth", "published persons", "hash")]
    for name, one in register().items():
        protocol = one.protocol
        truth = "measured joints" if protocol.truth.gender == "none" else f"{protocol.truth.gender} body"
        persons = "–" if protocol.persons is None else f"{protocol.persons:,}"
        told.append((name, protocol.title, protocol.keypoints.source, truth, persons, protocol.hash))
    widths = [max(len(row[column]) for row in told) for column in range(len(told[0]))]
    for row in told:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _compare(args: argparse.Namespace, rest: list[str]) -> int:
    if len(rest) != 2:
        args.refuse("compare takes two results")
    import json

    from dpmesh.evaluate.compare import compare, refuse_foreign, text
    from dpmesh.io import atomic_write

    if args.json is not None:
        refuse_foreign(args.json)
    found = compare(Path(rest[0]), Path(rest[1]))
    print(text(found))
    if args.json is not None:
        atomic_write(args.json, json.dumps(found, indent=1, allow_nan=False) + "\n")
    return 0


def _table(args: argparse.Namespace, rest: list[str]) -> int:
    if not rest:
        args.refuse("table takes results: folders or result.json files")
    from dpmesh.evaluate.report import read
    from dpmesh.evaluate.tables import tables

    print(tables([read(Path(name)) for name in rest]))
    return 0
