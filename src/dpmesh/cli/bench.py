"""`dpmesh bench robustness`: how the error grows when what the model is given gets worse."""

import argparse
from pathlib import Path

from dpmesh.cli.arguments import add_device, add_persons, count

_EPILOG = """\
dpmesh bench robustness --out DIR                                  the embedded model on SynthOcc
dpmesh bench robustness --weights A --weights B --set 3dpw --data ROOT --out DIR
dpmesh bench robustness --set SHARDS --out DIR                     your own people, from dpmesh data pack
docs/results.md shows a run."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add(
        "what",
        choices=("robustness",),
        help="robustness: keypoints, occluders, crops and pictures made worse",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="gets robustness.json and robustness.html")
    add(
        "--set",
        default="synthocc",
        metavar="PROTOCOL|FOLDER",
        help="of dpmesh eval list, or FOLDER (default: synthocc)",
    )
    add(
        "--weights", action="append", metavar="NAME|DIR", help="twice compares two models (default: embedded)"
    )
    add("--persons", type=count, default=300, metavar="N", help="the first N of the set (default: 300)")
    add("--map-persons", type=int, default=48, metavar="N", help="of them for the sliding box (default: 48)")
    add("--grid", type=count, default=7, metavar="N", help="places of the sliding box on a side (default: 7)")
    add("--only", nargs="+", default=[], metavar="NAME", help="of the corruptions these")
    add_persons(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from dpmesh.evaluate.robustness.report import markdown, require_matplotlib, write
    from dpmesh.evaluate.robustness.run import Bench, run

    require_matplotlib()
    bench = Bench(
        protocol=args.set,
        weights=tuple(args.weights or ("embedded",)),
        data=args.data,
        persons=args.persons,
        map_persons=args.map_persons,
        grid=args.grid,
        batch=args.batch,
        device=args.device,
        threads=args.threads,
        only=tuple(args.only),
    )
    found = run(bench)
    page = write(found, args.out)
    print(markdown(found))
    print(f"→ {page}")
    return 0
