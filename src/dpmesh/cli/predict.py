"""`dpmesh predict INPUT... --out DIR`: body meshes of the people in images."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from dpmesh.cli.arguments import (
    add_camera,
    add_model,
    add_option,
    add_people,
    add_recursive,
    folder,
    model_options,
    predict_options,
)
from dpmesh.cli.image_files import (
    check_keypoints,
    check_writable,
    input_files,
    parents_of,
    refuse_input_in,
    removed_if_empty,
)
from dpmesh.cli.run_report import Report, add_run
from dpmesh.errors import DPMeshError, InputError
from dpmesh.inference.options import ModelOptions, PredictOptions
from dpmesh.inference.output_formats import FORMATS, TABLES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image files, folders of images, or lists: FILE.txt with one path a line, - for standard input",
    )
    add_recursive(parser)
    add(
        "--out",
        type=folder,
        required=True,
        metavar="DIR",
        help="folder for the results: those of a.jpg are DIR/a/overlay.png, scene.glb, scene.json, ...",
    )
    add_people(parser)
    add_model(parser)
    for name in ("refine", "flip", "rotated_detection"):
        add_option(parser, ModelOptions, name)
    for name in ("hypotheses", "corrections"):
        add_option(parser, PredictOptions, name)
    add_camera(parser)
    add(
        "--save",
        default=FORMATS,
        type=_formats,
        metavar="LIST",
        help=f"what to write, separated by commas: {','.join(FORMATS)} (default: these), "
        "jsonl or parquet (one table of all people in DIR: DIR/people.jsonl, DIR/people.parquet; alone: no folder for "
        "each image)",
    )
    add(
        "--colour",
        default="person",
        choices=("person", "sigma"),
        help="colours of overlay and side view: one per person, or each joint's predicted error (default: person)",
    )
    add("--glb-image", action="store_true", help="show the image on a plane behind the people in scene.glb")
    add("--overwrite", action="store_true", help="compute and replace results that DIR already has")
    add_run(parser)
    parser.set_defaults(refuse=parser.error)


def run(args: argparse.Namespace) -> int:
    """0: all images are done, also where no person was detected; 1: some could not be read or written."""
    out = Path(args.out)
    check_keypoints(args)
    from dpmesh.inference.image_list import list_images, result_names
    from dpmesh.inference.people_table import plan_tables

    found = list_images(args.inputs, recursive=args.recursive, skip=out)
    # Of all images, also where a shard does some: names of results and entries of files depend on the others.
    everything = result_names(found.images)
    share = args.shard
    names = {path: name for path, name in everything.items() if share is None or share.has(str(path))}
    report = Report(args, len(names) + len(found.unusable), "inputs" if found.unusable else "images")
    if found.skipped_text:
        report.note(found.skipped_text)
    with removed_if_empty(out):
        check_writable(out)
        tables = _split_tables(args)
        kept_tables = plan_tables(out, tables)
        for path, why in found.unusable.items():
            report.failed(path, why)
        _predict(names, everything, out, args, report)
        if kept_tables and (names or not args.shard):
            _write_tables(out, tables, kept_tables, report)
        return report.end()


def _predict(
    names: Mapping[Path, str],
    everything: Mapping[Path, str],
    out: Path,
    args: argparse.Namespace,
    report: Report,
) -> None:
    """Do the images of `names` that are not done. everything: of all shards."""
    from dpmesh.bulk.album import Album, Kept
    from dpmesh.bulk.job import Job, Outcome

    people = predict_options(args)
    people.refuse_foreign_corrections(everything)
    looked_up = len(everything) > 1 and (args.keypoints is not None or args.boxes is not None)
    job = Job(
        model=model_options(args),
        people=people,
        out=out,
        colour=args.colour,
        glb_image=args.glb_image,
        inputs=tuple(map(str, everything)) if looked_up else (),
    )
    protected = parents_of([*names, *input_files(args)])
    album = Album(
        job,
        names,
        args.save,
        overwrite=args.overwrite,
        refuse=lambda target: refuse_input_in(target, protected),
    )
    kept, failed, todo = album.sort_out()
    for path, why in failed.items():
        report.failed(str(path), why)
    used: set[str] = set()
    with report.progress(len(todo), args.processes):
        for outcome in album.run(todo, args.processes) if todo else ():
            if isinstance(outcome, Outcome):
                used |= outcome.used
                report.outcome(outcome)
            elif isinstance(outcome, Kept):
                report.kept(outcome)
            else:
                report.note(outcome, "worker_ended")
    for one in kept:
        report.kept(one)
    report.finished(out)
    if todo and args.keypoints is not None:
        _say_unused(args, report, used, job.inputs)


def _write_tables(out: Path, tables: Sequence[str], kept: Sequence[str], report: Report) -> None:
    from dpmesh.inference.people_table import table_file, write_tables

    try:
        count = write_tables(out, tables)
    except DPMeshError as error:
        report.failed("", str(error), image_failed=False)
        return
    files = ", ".join(str(out / table_file(table)) for table in kept)
    report.line(f"{count} {'person' if count == 1 else 'people'} of all results in {out} → {files}")


def _split_tables(args: argparse.Namespace) -> tuple[str, ...]:
    """The tables that --save names. They are taken off args.save; with nothing else rows are streamed, else the tables
    are made of each result's json."""
    tables = tuple(name for name in args.save if name in TABLES)
    formats = [name for name in args.save if name not in TABLES]
    args.save = tuple(dict.fromkeys([*formats, *(["json"] if tables and formats else [])]))
    return tables


def _say_unused(args: argparse.Namespace, report: Report, used: set[str], inputs: Sequence[str]) -> None:
    """Print the images of the keypoint file that are not among the inputs: a misspelt name shows here."""
    from dpmesh.inference.keypoints.files import open_keypoints
    from dpmesh.inference.keypoints.names import some

    try:
        file = open_keypoints(Path(args.keypoints), args.format)
        file.used |= used  # by other processes
        unused = file.unused(inputs)
    except InputError:
        return  # reported for each image
    if unused:
        count = f"{len(unused)} image" + ("s" if len(unused) > 1 else "")
        report.line(f"{args.keypoints}: {count} not among the inputs: {some(unused)}")


def _formats(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [part for part in chosen if part not in (*FORMATS, *TABLES)]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {','.join((*FORMATS, *TABLES))}")
    return chosen
