"""`dpmesh inspect NAME|DIR|--all [--json]`: parameters, work (GFLOP) and provenance of models."""

import argparse
import json
from typing import Any

from dpmesh.errors import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "name",
        nargs="?",
        metavar="NAME|DIR",
        help="a configuration (embedded, paper, release, an ablation's) or a folder with weights",
    )
    which.add_argument("--all", action="store_true", help="all models of the paper's ablations, in one table")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    from dpmesh.profiling import describe, describe_ablations

    if args.all:
        rows = describe_ablations()
        print(json.dumps(rows, indent=1)) if args.json else _ablations(rows)
        return 0
    report = describe(args.name)
    print(json.dumps(report, indent=1)) if args.json else _table(report)
    return 0


def _table(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, table = Console(), Table("part", "parameters", "trainable", "GFLOP", "share")
    for name, part in [*report["parts"].items(), ("total", report["total"])]:
        numbers = (
            f"{part['parameters']:,}",
            f"{part['trainable']:,}",
            f"{part['gflop']:.3f}",
            f"{part['share']:.1%}",
        )
        table.add_row(Text(printable(name)), *numbers)
    # Names may come from a foreign config.json: no markup, no emoji codes, no escape sequences.
    heading = Text(printable(str(report["name"])), "bold")
    console.print(Text.assemble(heading, f", one person, {report['crop']}×{report['crop']}"))
    console.print(table)
    for key, value in report["provenance"].items():
        console.print(Text(printable(f"{key}: {value}")))


def _ablations(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("change", "model", "parameters", "trainable", "GFLOP", "backbone's", "GFLOP")
    group = None
    for row in rows:
        if row["group"] != group and group is not None:
            table.add_section()
        table.add_row(
            row["group"] if row["group"] != group else "",
            row["name"],
            f"{row['parameters']:,}",
            f"{row['trainable']:,}",
            f"{row['gflop']:.2f}",
            f"{row['backbone_parameters']:,}",
            f"{row['backbone_gflop']:.2f}",
        )
        group = row["group"]
    # Wide enough for all numbers, also in a pipe or a narrow window: none may be cut.
    Console(width=max(Console().width, 120)).print(table)
