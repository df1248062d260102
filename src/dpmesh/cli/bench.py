"""`dpmesh bench robustness`: how the error grows when what the model is given gets worse."""

import argparse
from pathlib import Path

from dpmesh.cli.arguments import add_device, add_persons, count, folder

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
    add("--out", type=folder, required=True, metavar="DIR", help="gets robustness.json and robustness.html")
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
    add("--overwrite", action="store_true", help="make again what DIR already holds")
    add_persons(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from dpmesh.evaluate.folder import alone
    from dpmesh.evaluate.names import line
    from dpmesh.evaluate.robustness.bench import Bench, run
    from dpmesh.evaluate.robustness.folder import kept, made_of
    from dpmesh.evaluate.robustness.report import PAGE, markdown, require_matplotlib, write

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
    out: Path = args.out
    if (found := kept(bench, out, args.overwrite)) is not None:
        print(f"{line(bench.protocol)}: done before, kept (--overwrite makes it again)")
        if not (out / PAGE).is_file():  # it was killed in between
            write(found, out)
    else:
        with alone(out):
            kept(bench, out, args.overwrite)  # nobody wrote here while we waited
            found = {**run(bench), "made of": made_of(bench)}
            write(found, out)
    print(markdown(found))
    print(f"→ {line(out / PAGE)}")
    return 0
