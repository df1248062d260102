"""`dpmesh predict INPUT... --out DIR`: body meshes of the people in images."""

import argparse
import gc
import os
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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
)
from dpmesh.cli.streams import say
from dpmesh.errors import ConfigError, DPMeshError, InputError, printable
from dpmesh.inference.options import ModelOptions, PredictOptions, file_sha256
from dpmesh.inference.output_formats import FORMATS, TABLES

if TYPE_CHECKING:
    from rich.console import Console

    from dpmesh.inference.scene import Scene


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
        "jsonl or parquet (one table of all people in DIR: DIR/people.jsonl, DIR/people.parquet; writes json too)",
    )
    add(
        "--colour",
        default="person",
        choices=("person", "sigma"),
        help="colours of overlay and side view: one per person, or each joint's predicted error (default: person)",
    )
    add("--glb-image", action="store_true", help="show the image on a plane behind the people in scene.glb")
    add("--overwrite", action="store_true", help="compute and replace results that DIR already has")
    parser.set_defaults(refuse=parser.error)


def run(args: argparse.Namespace) -> int:
    """0: all images are done, also where no person was detected; 1: some could not be read or written."""
    out = Path(args.out)
    check_keypoints(args)
    from dpmesh.inference.image_list import list_images, result_names
    from dpmesh.inference.people_table import plan_tables, table_file, write_tables

    found = list_images(args.inputs, recursive=args.recursive, skip=out)
    names, unusable = result_names(found.images), found.unusable
    if found.skipped_text:
        say(found.skipped_text, error=True)
    check_writable(out)
    tables = _split_tables(args)
    kept_tables = plan_tables(out, tables)
    done, failed, todo = _sort_out(names, out, args)
    if todo:
        failed |= _predict(todo, names, out, args)
    finished = len(names) - len(failed)
    for path in done:
        say(f"{path}: done before, kept (--overwrite makes it again) → {out / names[path]}")
    if finished > 1:
        say(f"{finished} results in {out}")
    if todo and args.keypoints is not None:
        _say_unused(args)
    broken: list[str] = []
    if kept_tables:
        try:
            count = write_tables(out, tables)
            files = ", ".join(str(out / table_file(table)) for table in kept_tables)
            say(f"{count} {'person' if count == 1 else 'people'} of all results in {out} → {files}")
        except DPMeshError as error:
            broken.append(str(error))
    return _report(
        [*unusable.values(), *failed.values(), *broken], len(names) + len(unusable), bool(unusable)
    )


def _split_tables(args: argparse.Namespace) -> tuple[str, ...]:
    """The tables that --save names; they are taken off args.save, which then has the json that they are made of."""
    tables = tuple(name for name in args.save if name in TABLES)
    formats = [name for name in args.save if name not in TABLES]
    args.save = tuple(dict.fromkeys([*formats, *(["json"] if tables else [])]))
    return tables


def _say_unused(args: argparse.Namespace) -> None:
    """Print the images of the keypoint file that are not among the inputs: a misspelt name shows here."""
    from dpmesh.inference.keypoints.files import open_keypoints
    from dpmesh.inference.keypoints.names import some

    try:
        unused = open_keypoints(Path(args.keypoints), args.format).unused()
    except InputError:
        return  # reported for each image
    if unused:
        count = f"{len(unused)} image" + ("s" if len(unused) > 1 else "")
        say(f"{args.keypoints}: {count} not among the inputs: {some(unused)}")


def _predict(
    todo: Sequence[Path], names: dict[Path, str], out: Path, args: argparse.Namespace
) -> dict[Path, str]:
    """Predict and write. Returns the images that failed -> why."""
    with _no_collection_while_loading():
        from dpmesh.inference.predictor import Predictor, predict_stream

        predictor = Predictor.from_pretrained(**vars(model_options(args)))
    if args.colour == "sigma" and not predictor.predicts_sigma:
        raise ConfigError(
            "these weights do not predict their error",
            where=f"--weights {args.weights}",
            fix="Drop --colour sigma, or train it (docs/guide/training.md, the stage `uncertainty`).",
        )
    rest = [str(path) for path in names.keys() - set(todo)]
    scenes = predict_stream(predictor, todo, predict_options(args), rest)
    failed: dict[Path, str] = {}
    with _progress(len(todo)) as (write_line, advance):
        for path, scene in scenes:
            try:
                if isinstance(scene, DPMeshError):
                    raise scene
                target = out / names[path]
                folder = scene.save(
                    target.parent,
                    target.name,
                    args.save,
                    args.overwrite,
                    args.colour,
                    glb_image=args.glb_image,
                )
                write_line(f"{path}: {_summary(scene)} → {folder}")
            except DPMeshError as error:
                failed[path] = str(error)
            del scene  # its memory is free before the next image is read
            advance()
    return failed


@contextmanager
def _no_collection_while_loading() -> Generator[None]:
    """Pauses garbage collection in a process that has yet to import torch.

    Loading makes half a million objects that stay; searching them for garbage takes a tenth of the start-up time.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


_FALLBACKS = {
    "translation": ("distance from the crop camera", "distances from the crop camera"),
    "no_keypoints": ("person without keypoints in the crop", "people without keypoints in the crop"),
    "merged": ("duplicate detection dropped", "duplicate detections dropped"),
    "unposed": ("box without keypoints", "boxes without keypoints"),
    "unposed_dropped": ("box without keypoints dropped", "boxes without keypoints dropped"),
    "turned": ("rotated detection", "rotated detections"),
    "dropped": ("person beyond --max-people", "people beyond --max-people"),
    "non_finite": ("keypoint that is not finite", "keypoints that are not finite"),
    "far_outside": ("keypoint far outside the image", "keypoints far outside the image"),
    "skipped": ("entry without a person skipped", "entries without a person skipped"),
    "malformed": ("entry that cannot be read", "entries that cannot be read"),
    "no_label_file": ("missing label file", "missing label files"),
}
"""Key of Scene.fallbacks -> the words for one and for several."""


def _happened(name: str, count: int) -> str:
    one, several = _FALLBACKS.get(name, (name, name))
    return f"{count} {one if count == 1 else several}"


def _summary(scene: "Scene") -> str:
    people = {0: "no person detected, an empty scene", 1: "1 person"}.get(
        len(scene.people), f"{len(scene.people)} people"
    )
    extra = [_happened(name, n) for name, n in scene.fallbacks.items()] + list(scene.notes)
    return people + (f" ({'; '.join(extra)})" if extra else "")


def _sort_out(
    names: dict[Path, str], out: Path, args: argparse.Namespace
) -> tuple[list[Path], dict[Path, str], list[Path]]:
    """(done before, failed, to do). An existing result is kept if it is of the same image and options."""
    from dpmesh.inference.output_formats import wanted_scene
    from dpmesh.inference.result_folder import plan_result

    done: list[Path] = []
    failed: dict[Path, str] = {}
    todo: list[Path] = []
    model: dict[str, object] = {}
    people = predict_options(args)
    people.refuse_foreign_corrections(names)
    protected = parents_of([*names, *input_files(args)])
    for path, name in names.items():
        target = out / name
        if not os.path.lexists(target):  # nothing to compare with
            todo.append(path)
            continue
        try:
            refuse_input_in(target, protected)
            digest = "" if args.overwrite else file_sha256(path)
            if not model and not args.overwrite:
                model = model_options(args).record()
            options = {} if args.overwrite else model | people.record_of(str(path), digest)
            wanted = wanted_scene(digest, str(path), options, args.save, args.colour, args.glb_image)
            plan = plan_result(target, wanted, args.overwrite)
            (done if plan.kind == "keep" else todo).append(path)
        except DPMeshError as error:
            failed[path] = str(error)
    return done, failed, todo


def _report(failed: Sequence[str], total: int, folders: bool) -> int:
    if failed and total > 1:
        say(f"dpmesh: {len(failed)} of {total} {'inputs' if folders else 'images'} failed:", error=True)
    for message, images in Counter(failed).items():  # one line for each cause
        line = " ".join(message.split()) + (f" ({images} images)" if images > 1 else "")
        say(f"  {line}" if total > 1 else f"dpmesh: {line}", error=True)
    return 1 if failed else 0


@contextmanager
def _progress(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """(write_line, advance): lines on stdout; a bar on stderr for more than one image at a terminal."""
    if total < 2 or not sys.stderr.isatty():
        yield say, lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("images", total=total)
        yield (say if not sys.stdout.isatty() else above(bar.console)), lambda: bar.advance(task)


def above(console: "Console") -> Callable[[str], None]:
    """A function that prints a line above a progress bar as plain text: no markup, no emoji codes, no escapes."""

    def write_line(line: str) -> None:
        console.print(printable(line), markup=False, emoji=False, highlight=False, soft_wrap=True)

    return write_line


def _formats(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [part for part in chosen if part not in (*FORMATS, *TABLES)]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {','.join((*FORMATS, *TABLES))}")
    return chosen
