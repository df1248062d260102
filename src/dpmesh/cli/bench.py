"""`dpmesh bench robustness`: how errors grow as the model's inputs are corrupted."""

import argparse
from pathlib import Path

from dpmesh.cli.arguments import add_device, add_persons, count, folder

_EPILOG = """\
dpmesh bench robustness --out DIR                                  the embedded model on SynthOcc
dpmesh bench robustness --protocol 3dpw --data ROOT --weights A --weights B --out DIR
dpmesh bench robustness --protocol SHARDS --out DIR                your own people, from dpmesh data pack
docs/research/results.md shows a run."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    benches = parser.add_subparsers(metavar="BENCH", required=True, title="benches")
    text = "corrupted keypoints, occluders, shifted crops, image noise"
    _add_robustness(
        benches.add_parser("robustness", help=text, description=f"{text.capitalize()}.", allow_abbrev=False)
    )


def _add_robustness(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--protocol",
        default="synthocc",
        metavar="PROTOCOL|SHARDS",
        help="a protocol of dpmesh eval list, or a folder of shards (default: synthocc)",
    )
    add("--out", type=folder, required=True, metavar="DIR", help="gets robustness.json and robustness.html")
    add(
        "--weights",
        action="append",
        metavar="NAME|DIR",
        help="repeat it to compare models (default: embedded)",
    )
    add(
        "--people",
        type=count,
        default=300,
        metavar="N",
        help="evaluate the first N people only (default: 300)",
    )
    add(
        "--map-people",
        type=int,
        default=48,
        metavar="N",
        help="the first N of them for the sliding box (default: 48)",
    )
    add(
        "--grid",
        type=count,
        default=7,
        metavar="N",
        help="positions of the sliding box along a side (default: 7)",
    )
    add("--only", nargs="+", default=[], metavar="NAME", help="run only these corruptions")
    add("--overwrite", action="store_true", help="run again, and replace an existing report")
    add_persons(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from dpmesh.evaluate.checks import one_line
    from dpmesh.evaluate.folder import exclusive
    from dpmesh.evaluate.robustness.bench import RobustnessConfig
    from dpmesh.evaluate.robustness.bench import run as run_bench
    from dpmesh.evaluate.robustness.report import (
        PAGE,
        fingerprint,
        finished_report,
        markdown,
        require_matplotlib,
        write,
    )

    require_matplotlib()
    config = RobustnessConfig(
        protocol=args.protocol,
        weights=tuple(args.weights or ("embedded",)),
        data=args.data,
        people=args.people,
        map_people=args.map_people,
        grid=args.grid,
        batch=args.batch,
        device=args.device,
        threads=args.threads,
        only=tuple(args.only),
    )
    out: Path = args.out
    report = finished_report(config, out, args.overwrite)
    if report is not None:
        print(f"{one_line(config.protocol)}: already done, kept (--overwrite runs it again)")
        if not (out / PAGE).is_file():  # the run was killed between the two files
            write(report, out)
    else:
        with exclusive(out):
            finished_report(config, out, args.overwrite)  # fails if another run wrote here in the meantime
            report = {**run_bench(config), "made of": fingerprint(config)}
            write(report, out)
    print(markdown(report))
    print(f"→ {one_line(out / PAGE)}")
    return 0
