"""`dpmesh predict INPUT... --out DIR`: bodies from pictures."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dpmesh.cli.album import (
    check_writable,
    files_of,
    find_pictures,
    name_results,
    places_of,
    refuse_input_in,
)
from dpmesh.cli.arguments import add_model, add_people, angle, folder, positive
from dpmesh.cli.streams import say
from dpmesh.errors import ConfigError, DPMeshError, InputError, printable

if TYPE_CHECKING:
    from rich.console import Console

    from dpmesh.inference.scene import Scene

_FORMATS = ("overlay", "glb", "obj", "npz", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="pictures, or folders of pictures")
    add(
        "--out",
        type=folder,
        required=True,
        metavar="DIR",
        help="a.jpg becomes DIR/a/overlay.png, scene.glb, scene.json, ...",
    )
    add_people(parser)
    add_model(parser)
    after = parser.add_mutually_exclusive_group()
    after.add_argument(
        "--refine",
        action="store_true",
        help="then fit every body to its 2D keypoints (slower; docs/results.md)",
    )
    after.add_argument(
        "--flip",
        action="store_true",
        help="look at every person's mirror image as well, and average (better, slower; docs/embedded.md)",
    )
    add(
        "--no-turn",
        action="store_true",
        help="do not look for keypoints twice where somebody leans or lies (docs/detection.md)",
    )
    lens = parser.add_mutually_exclusive_group()
    lens.add_argument("--focal", type=positive, metavar="PX", help="focal length, pixels of the picture")
    lens.add_argument("--fov", type=angle, metavar="DEG", help="field of view across the picture's width")
    add(
        "--save",
        default=_FORMATS,
        type=_formats,
        metavar="LIST",
        help=f"of {','.join(_FORMATS)} (default: all)",
    )
    add(
        "--colour",
        default="person",
        choices=("person", "sigma"),
        help="of overlay and side view: one for each person, or by how sure each joint is",
    )
    add("--overwrite", action="store_true", help="make again what DIR already holds")
    parser.set_defaults(refuse=parser.error)


def run(args: argparse.Namespace) -> int:
    """0: all pictures done (nobody in one is fine); 1: some could not be read or written."""
    if args.colour == "sigma" and args.refine:
        args.refuse(
            "--colour sigma: a refined body has no sigma, the network judged the body before --refine"
        )
    out = Path(args.out)
    if args.keypoints is not None and not os.path.exists(args.keypoints):
        raise InputError("no such file or folder", where=args.keypoints, fix="Check the path.")
    bad: dict[str, str] = {}
    names = name_results(find_pictures(args.inputs, bad))
    check_writable(out)
    done, failed, todo = _sort_out(names, out, args)
    if todo:
        failed |= _predict(todo, names, out, args)
    finished = len(names) - len(failed)
    for path in done:
        say(f"{path}: done before, kept (--overwrite makes it again) → {out / names[path]}")
    if finished > 1:
        say(f"{finished} results in {out}")
    if todo and args.keypoints is not None:
        _tell_unused(args)
    return _report([*bad.values(), *failed.values()], len(names) + len(bad), bool(bad))


def _tell_unused(args: argparse.Namespace) -> None:
    """Images of the keypoint file that were not among the inputs: a name misspelt would otherwise be silent."""
    from dpmesh.inference.keypoints.files import open_keypoints
    from dpmesh.inference.keypoints.names import some

    try:
        unused = open_keypoints(Path(args.keypoints), args.keypoint_format).unused()
    except InputError:
        return  # told for each image
    if unused:
        count = f"{len(unused)} image" + ("s" if len(unused) > 1 else "")
        say(f"{args.keypoints}: {count} not among the inputs: {some(unused)}")


def _predict(
    todo: Sequence[Path], names: dict[Path, str], out: Path, args: argparse.Namespace
) -> dict[Path, str]:
    """Run the model and write; returns what failed and why."""
    from dpmesh.inference.images import MAX_PIXELS
    from dpmesh.inference.predictor import Predictor

    predictor = Predictor.from_pretrained(
        args.weights,
        args.device,
        args.threads,
        args.fast,
        args.body,
        args.regressors,
        args.refine,
        not args.no_turn,
        args.flip,
    )
    if args.colour == "sigma" and not predictor.predicts_sigma:
        raise ConfigError(
            "these weights do not tell how sure they are",
            where=f"--weights {args.weights}",
            fix="Drop --colour sigma, or train it (docs/training.md, the stage `uncertainty`).",
        )
    scenes = predictor.predict_many(
        todo,
        keypoints=args.keypoints,
        keypoint_format=args.keypoint_format,
        boxes=args.boxes,
        focal=args.focal,
        fov=args.fov,
        max_people=args.max_people,
        max_pixels=args.max_pixels or MAX_PIXELS,
    )
    failed: dict[Path, str] = {}
    with _progress(len(todo)) as (tell, advance):
        for path, scene in scenes:
            try:
                if isinstance(scene, DPMeshError):
                    raise scene
                folder = scene.save(out, names[path], args.save, overwrite=args.overwrite, colour=args.colour)
                tell(f"{path}: {_summary(scene)} → {folder}")
            except DPMeshError as error:
                failed[path] = str(error)
            del scene  # the next image is read before this name is given to it
            advance()
    return failed


def _summary(scene: "Scene") -> str:
    people = {0: "no person found, an empty scene", 1: "1 person"}.get(
        len(scene.people), f"{len(scene.people)} people"
    )
    extra = [f"{n} {name}" for name, n in scene.fallbacks.items()] + list(scene.notes)
    return people + (f" ({'; '.join(extra)})" if extra else "")


def _sort_out(
    names: dict[Path, str], out: Path, args: argparse.Namespace
) -> tuple[list[Path], dict[Path, str], list[Path]]:
    """(done before, failed already, to do): what an earlier run left is kept if it is the same result."""
    from dpmesh.inference.formats import wanted_scene
    from dpmesh.inference.options import file_sha256, image_options, model_options
    from dpmesh.inference.result_folder import plan_result

    done: list[Path] = []
    failed: dict[Path, str] = {}
    todo: list[Path] = []
    options: dict[str, object] = {}
    places = places_of([*names, *files_of(args)])
    for path, name in names.items():
        target = out / name
        if not os.path.lexists(target):  # nothing to compare with
            todo.append(path)
            continue
        try:
            refuse_input_in(target, places)
            digest = "" if args.overwrite else file_sha256(path)
            if not options and not args.overwrite:
                options = model_options(
                    args.weights,
                    args.body,
                    args.regressors,
                    args.fast,
                    args.refine,
                    not args.no_turn,
                    args.flip,
                ) | image_options(
                    args.keypoints, args.boxes, args.focal, args.fov, args.max_people, args.keypoint_format
                )
            wanted = wanted_scene(digest, str(path), options, args.save, args.colour)
            plan = plan_result(target, wanted, args.overwrite)
            (done if plan.kind == "keep" else todo).append(path)
        except DPMeshError as error:
            failed[path] = str(error)
    return done, failed, todo


def _report(failed: Sequence[str], total: int, folders: bool) -> int:
    if failed and total > 1:
        say(f"dpmesh: {len(failed)} of {total} {'inputs' if folders else 'pictures'} failed:", error=True)
    for message in failed:
        line = " ".join(message.split())
        say(f"  {line}" if total > 1 else f"dpmesh: {line}", error=True)
    return 1 if failed else 0


@contextmanager
def _progress(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """(tell, advance): a bar on stderr for more than one picture at a terminal; lines on stdout."""
    if total < 2 or not sys.stderr.isatty():
        yield say, lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("pictures", total=total)
        yield (say if not sys.stdout.isatty() else above(bar.console)), lambda: bar.advance(task)


def above(console: "Console") -> Callable[[str], None]:
    """Prints a line above a progress bar, as it is: no markup, no emoji codes, no escape sequences."""

    def tell(line: str) -> None:
        console.print(printable(line), markup=False, emoji=False, highlight=False, soft_wrap=True)

    return tell


def _formats(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [part for part in chosen if part not in _FORMATS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {','.join(_FORMATS)}")
    return chosen
