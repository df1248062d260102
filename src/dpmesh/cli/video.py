"""`dpmesh video INPUT... --out DIR`: people in videos, as tracks, overlays and animations."""

import argparse
import math
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpmesh.cli.arguments import (
    add_camera,
    add_model,
    add_option,
    count,
    folder,
    model_options,
    predict_options,
)
from dpmesh.cli.image_files import check_writable
from dpmesh.cli.streams import say
from dpmesh.errors import DPMeshError, InputError, OutputError
from dpmesh.inference.options import ModelOptions, PredictOptions

if TYPE_CHECKING:
    from dpmesh.inference.corrections import Corrections
    from dpmesh.inference.predictor import Predictor

FORMATS = ("npz", "overlay", "side", "glb", "bvh", "trc", "amass", "csv", "plot")
_DEFAULT = tuple(name for name in FORMATS if name != "side")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="video files, folders of numbered images, camera:0, or a stream's URL",
    )
    add(
        "--out",
        type=folder,
        required=True,
        metavar="DIR",
        help="the results of a.mp4 are DIR/a/tracks.npz, ...",
    )
    add("--start", type=float, default=0.0, metavar="SECONDS", help="first second (default: 0)")
    add(
        "--end",
        type=float,
        default=float("inf"),
        metavar="SECONDS",
        help="until this second (default: the end)",
    )
    add("--every", type=count, default=1, metavar="N", help="only each N-th frame (default: 1)")
    add(
        "--fps",
        type=float,
        metavar="N",
        help="frames a second of a folder of images (default: 30), or in place of a video's own times",
    )
    add(
        "--static-camera",
        action="store_true",
        help="the camera does not move: estimate the floor, and keep standing feet in their places",
    )
    add(
        "--live",
        action="store_true",
        help="smooth each frame by those before it, without waiting: for cameras; less smooth than the default",
    )
    add(
        "--corrections",
        dest="listed",
        type=Path,
        metavar="FILE",
        help="corrections by hand, which dpmesh view --edit saved: docs/guide/corrections.md",
    )
    add("--units", choices=("cm", "m"), default="cm", help="of the lengths in BVH files (default: cm)")
    add(
        "--save",
        type=_formats,
        default=_DEFAULT,
        metavar="LIST",
        help=f"what to write, separated by commas: {','.join(FORMATS)} (default: all but side, the overlay with a view "
        "from the side); npz is always written",
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--overwrite", action="store_true", help="replace results that DIR already has")
    either.add_argument(
        "--resume", action="store_true", help="go on with interrupted runs; keep finished results"
    )
    add_option(parser, PredictOptions, "max_people")
    for name in ("pose_model", "person_model"):
        add_option(parser, ModelOptions, name)
    add_model(parser)
    add_option(parser, ModelOptions, "refine")
    add("--flip", action="store_true", help="two forward passes a frame: slower, and hardly more accurate")
    add_camera(parser)


def run(args: argparse.Namespace) -> int:
    """0: all videos are done; 1: some could not be read or written; 130: interrupted, what was done is written."""
    from dpmesh.inference.corrections import Corrections
    from dpmesh.inference.predictor import Predictor
    from dpmesh.video.decode import import_av

    import_av()
    listed = Corrections() if args.listed is None else Corrections.read(args.listed)
    check_writable(args.out)
    targets = _targets(args)
    signal.signal(signal.SIGTERM, _interrupt)
    predictor = Predictor.from_pretrained(**vars(model_options(args)))
    status = 0
    for source, target in targets.items():
        try:
            if _video(source, target, args, predictor, listed):
                return 130
        except DPMeshError as error:
            say(f"dpmesh: {error}", error=True)
            status = 1
    return status


def _interrupt(*_: object) -> None:
    """SIGTERM ends a run as Ctrl-C does."""
    raise KeyboardInterrupt


def _targets(args: argparse.Namespace) -> dict[str, Path]:
    """Input -> its result folder. Raises InputError where two inputs have one name, OutputError for a folder that holds
    anything else, or a result without --overwrite and --resume."""
    from dpmesh.video.files import is_result

    targets: dict[str, Path] = {}
    for source in args.inputs:
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in Path(source).stem) or "video"
        target = Path(args.out) / name
        if target in targets.values():
            raise InputError(f"two inputs are called {name}", where=str(source), fix="Use two --out folders.")
        if target.exists() and any(target.iterdir()):
            if not is_result(target):
                raise OutputError(
                    "holds files that dpmesh did not write", where=str(target), fix="Choose another --out."
                )
            if not args.overwrite and not args.resume:
                raise OutputError(
                    "holds a result already",
                    where=str(target),
                    fix="Add --overwrite, or --resume if it was interrupted, or choose another --out.",
                )
        targets[str(source)] = target
    return targets


def _video(
    source: str, target: Path, args: argparse.Namespace, predictor: "Predictor", listed: "Corrections"
) -> bool:
    """Predict and write one video; returns whether it was interrupted."""
    from dpmesh.inference.corrections import corrections_record
    from dpmesh.video.correct import correct_tracks
    from dpmesh.video.files import write_result
    from dpmesh.video.unfinished import (
        RESULT,
        can_resume,
        finish,
        input_record,
        is_finished,
        publish,
        unfinished,
    )
    from dpmesh.video.video import Video

    options = predict_options(args)
    video = Video(
        source,
        predictor,
        start=args.start,
        end=args.end,
        every=args.every,
        fps=args.fps,
        static_camera=args.static_camera,
        live=args.live,
        passes="two" if args.flip else "alternate",
        **{name: value for name, value in vars(options).items() if value is not None},
    )
    if args.resume and video.source.live:
        raise InputError("a camera or stream cannot be resumed", where=source, fix="Leave --resume out.")
    made_of = input_record(source)
    steps = listed.of(source, str(made_of.get("sha256", "")))
    if listed.entries and not steps:
        raise InputError(f"has no corrections of {Path(source).name}", where=str(args.listed))
    recorded = {
        "input": made_of,
        **predictor.options,
        **options.record(),
        "start": args.start,
        "end": None if math.isinf(args.end) else args.end,
        "every": args.every,
        "fps": args.fps,
        "live": args.live,
        "flip": args.flip,
        "static_camera": args.static_camera,
        "save": sorted(args.save),
        "units": args.units,
        "corrections": corrections_record(steps),
    }
    if args.resume and is_finished(target, recorded):
        say(f"{source}: done before, kept (--overwrite makes it again) → {target}")
        return False
    resume = args.resume and can_resume(target, recorded)
    with unfinished(target, recorded, resume) as (part, recording):
        progress = Progress(video.frames, recording.frames)
        notes = video.record(recording, progress)
        progress.end()
        tracks = correct_tracks(video.solve(recording, notes), steps, predictor.model.body)
        made: dict[str, Any] = {
            "source": source,
            "weights": predictor.weights,
            "focal_source": recording.focal_source,
            "options": recorded,
        }
        notes = write_result(
            tracks, part / RESULT, predictor.model.body, video.source, video.span, made, args.save, args.units
        )
        said = [*tracks.notes, *notes]
        publish(part, target)
        if not tracks.interrupted:
            finish(part)
    people = "1 person" if len(tracks) == 1 else f"{len(tracks)} people"
    again = "; --resume goes on" if tracks.interrupted and not video.source.live else ""
    notes_said = "".join(f"; {note}" for note in dict.fromkeys(said))
    say(f"{source}: {tracks.frames} frames, {people}{notes_said}{again} → {target}")
    return tracks.interrupted


class Progress:
    """Frames, rate, time left and people on stderr: one line that changes on a terminal, else a line each minute."""

    def __init__(self, total: int | None, done: int) -> None:
        """total: frames, where known. done: before this run."""
        self.total, self.done = total, done
        self.start = self.last = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def __call__(self, frames: int, people: int) -> None:
        now = time.monotonic()
        if now - self.last < (0.5 if self.terminal else 60):
            return
        self.last = now
        rate = (frames - self.done) / max(now - self.start, 1e-6)
        left = ""
        if self.total is not None:
            seconds = max(0, self.total - frames) / max(rate, 1e-6)
            left = f"/{self.total}, {time.strftime('%H:%M:%S', time.gmtime(seconds))} left"
        text = f"frame {frames}{left}, {rate:.1f} frames/s, {people} {'person' if people == 1 else 'people'}"
        ends = ("\r", "\x1b[K") if self.terminal else ("", "\n")
        print(f"{ends[0]}{text}{ends[1]}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.terminal:
            print(file=sys.stderr)


def _formats(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [part for part in chosen if part not in FORMATS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {','.join(FORMATS)}")
    return chosen
