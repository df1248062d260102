"""`dpmesh inspect NAME|DIR [--json]`: parameters, work and provenance of a model."""

import argparse
import json
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a configuration (embedded, paper, release) or a folder with weights")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    from dpmesh.cost import describe

    report = describe(args.name)
    print(json.dumps(report, indent=1)) if args.json else _table(report)
    return 0


def _table(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console, table = Console(), Table("part", "parameters", "trainable", "GFLOP", "share")
    for name, part in [*report["parts"].items(), ("total", report["total"])]:
        numbers = (
            f"{part['parameters']:,}",
            f"{part['trainable']:,}",
            f"{part['gflop']:.3f}",
            f"{part['share']:.1%}",
        )
        table.add_row(name, *numbers)
    console.print(f"[bold]{report['name']}[/bold], one person, {report['crop']}×{report['crop']}")
    console.print(table)
    for key, value in report["provenance"].items():
        console.print(f"{key}: {value}", markup=False)
