"""`dpmesh bulk SOURCE... --out URI`: body meshes of the people in very many images, on a cluster."""

import argparse
import math
import os
import sys
from contextlib import suppress
from pathlib import Path

from dpmesh.cli.arguments import (
    add_camera,
    add_model,
    add_option,
    count,
    model_options,
    positive,
    predict_options,
)
from dpmesh.cli.run_report import Report, add_log
from dpmesh.cli.streams import say
from dpmesh.inference.options import ModelOptions, PredictOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="images, folders, lists (FILE.txt, - for standard input), webdataset shards (.tar), Parquet files with "
        "image bytes: paths, or URIs as s3://bucket/folder",
    )
    add("--recursive", action="store_true", help="folders below SOURCE too")
    add("--out", required=True, metavar="URI", help="folder or URI for part-*.parquet, a row for each person")
    add("--part", type=count, default=256, metavar="N", help="images of an output file (default: 256)")
    add("--retry-errors", action="store_true", help="do images again that have failed before")
    add(
        "--thumbnails",
        nargs="?",
        type=count,
        const=256,
        default=0,
        metavar="PIXELS",
        help="a column of JPEGs of the overlay, so long at their longest side (256 where no number follows)",
    )
    add(
        "--image-column",
        default="",
        metavar="NAME",
        help="of Parquet files (default: image, jpg, bytes, ...)",
    )
    add(
        "--key-column",
        default="",
        metavar="NAME",
        help="whose text is the key of an image (default: FILE#ROW)",
    )
    add(
        "--address",
        default="",
        help="of a Ray cluster, auto for the one that runs here (default: start Ray here)",
    )
    add(
        "--actors",
        type=count,
        default=0,
        metavar="N",
        help="processes with a model (default: as many as fit)",
    )
    add("--num-cpus", type=positive, default=1.0, metavar="N", help="cores of each (default: 1)")
    add(
        "--num-gpus",
        type=_share,
        default=0.0,
        metavar="N",
        help="GPUs of each; 0.1: ten share one (default: 0)",
    )
    add(
        "--recycle",
        type=count,
        default=20_000,
        metavar="N",
        help="images after which a process is replaced (default: 20000)",
    )
    for name in ("max_people", "max_pixels", "keep_unposed"):
        add_option(parser, PredictOptions, name)
    add_model(parser)
    for name in ("fast", "pose_model", "person_model", "refine", "flip", "rotated_detection"):
        add_option(parser, ModelOptions, name)
    add_camera(parser)
    add_log(parser)


def run(args: argparse.Namespace) -> int:
    """0: each image has its rows; 1: some could not be read."""
    from dpmesh.bulk.job import Job
    from dpmesh.bulk.ray_run import BulkOptions, BulkRun, ClusterGone

    options = BulkOptions(
        address=args.address,
        actors=args.actors,
        cpus=args.num_cpus,
        gpus=args.num_gpus,
        part=args.part,
        recycle=args.recycle,
        image_column=args.image_column,
        key_column=args.key_column,
        retry_errors=args.retry_errors,
        thumbnails=args.thumbnails,
    )
    job = Job(model=model_options(args), people=predict_options(args), out=Path())
    bulk = BulkRun(job, args.sources, args.out, options, recursive=args.recursive)
    report = Report(args, 2**31, "images")
    report.started(len(bulk.units), args.actors)
    if bulk.done:
        failed = f", {bulk.failed_before} of them failed (--retry-errors)" if bulk.failed_before else ""
        report.note(f"{bulk.done} images have their rows{failed}")
    try:
        for unit in bulk.run():
            report.unit(unit)
    except ClusterGone as error:
        say(f"dpmesh: {error}", error=True)
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(1)  # Ray's own end would wait for the cluster
    report.line(f"{report.done} images with {report.people} people → {args.out}")
    report.total = report.done + len(report.errors)
    return report.end()


def _share(text: str) -> float:
    value = float(text) if text.replace(".", "", 1).isdigit() else math.nan
    if not 0 <= value < 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GPUs")
    return value
