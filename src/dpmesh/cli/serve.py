"""`dpmesh serve`: images and videos over HTTP, and a page to try it."""

import argparse
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dpmesh.cli.arguments import add_model, add_option, count, model_options, positive
from dpmesh.cli.streams import flush_stdout, say
from dpmesh.errors import ConfigError, InputError
from dpmesh.inference.options import ModelOptions
from dpmesh.io import read_bytes

if TYPE_CHECKING:
    from dpmesh.inference.predictor import Predictor

_NEEDS = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}
"""Module -> its package."""
_LONGEST_TOKEN = 4096
_OWN_MACHINE = ("127.0.0.1", "localhost", "::1")
MEBIBYTE = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)")
    add("--port", type=int, default=8080, metavar="N", help="0 takes a free one (default: 8080)")
    add(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="bearer token that clients must send (default: of the environment variable DPMESH_TOKEN, else none)",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--queue",
        type=count,
        metavar="N",
        help="images that are worked on or wait; more get 429 (default: two for each core, on a GPU also a batch)",
    )
    for flag, kind, default, text in (
        ("--timeout", positive, 30, "seconds from an accepted image to its answer"),
        ("--max-mib", positive, 32, "size of an image file, MiB"),
        ("--max-pixels", count, 50_000_000, "pixels of an image"),
        ("--max-people", count, 20, "people per image"),
        ("--max-video-mib", positive, 256, "size of a video file, MiB"),
        ("--max-video-seconds", positive, 60, "length of a video"),
        ("--keep-results", positive, 600, "seconds that a video's results can be fetched"),
        ("--grace", positive, 30, "seconds for what was accepted, after SIGTERM"),
    ):
        limits.add_argument(
            flag, type=kind, default=default, metavar="N", help=f"{text} (default: {default:,})"
        )
    limits.add_argument("--no-video", action="store_true", help="take no videos")
    add_model(parser)
    for name in ("refine", "flip", "fast", "rotated_detection", "pose_model", "person_model"):
        add_option(parser, ModelOptions, name)


def run(args: argparse.Namespace) -> int:
    """0 after SIGTERM or Ctrl-C, when what was accepted is answered."""
    for module, package in _NEEDS.items():
        if importlib.util.find_spec(module) is None:
            raise ConfigError(f"{package} is not installed", where="serve", fix="pip install 'dpmesh[serve]'")
    from dpmesh.inference.predictor import Predictor
    from dpmesh.serve.limits import TOKEN, Limits
    from dpmesh.serve.server import listen, log_to_stderr, run
    from dpmesh.serve.service import Service
    from dpmesh.serve.video_job import command

    token = os.environ.get(TOKEN, "") if args.token_file is None else _token(args.token_file)
    options = model_options(args)
    bound = listen(args.host, args.port)  # before the model is loaded: a taken port is known at once
    predictor = Predictor.from_pretrained(**vars(options))
    _warm_up(predictor)
    limits = Limits(
        max_bytes=int(args.max_mib * MEBIBYTE),
        max_pixels=args.max_pixels,
        max_people=args.max_people,
        queue=args.queue or _places(predictor),
        timeout=args.timeout,
        max_video_bytes=int(args.max_video_mib * MEBIBYTE),
        max_video_seconds=args.max_video_seconds,
        keep_results=args.keep_results,
        grace=args.grace,
    )
    videos = None
    if not args.no_video and importlib.util.find_spec("av"):
        videos = lambda source, out, chosen: command(  # noqa: E731
            source, out, chosen, options, limits.max_video_seconds
        )
    service = Service(predictor, limits, token, videos)
    host, port = bound.getsockname()[:2]
    log_to_stderr()
    shown = f"[{host}]" if ":" in host else host
    say(f"http://{shown}:{port} (Ctrl-C ends it){'' if videos else '; no videos'}")
    flush_stdout()
    if args.host not in _OWN_MACHINE and not token:
        say(f"dpmesh: any client that reaches this machine may use it; set {TOKEN}", error=True)
    run(service, bound)
    return 0


def _token(path: Path) -> str:
    """Raises InputError for a file without a token: it would open the service to all."""
    token = read_bytes(path, _LONGEST_TOKEN).decode(errors="replace").strip()
    if not token:
        raise InputError("holds no token", where=str(path), fix="Make one: openssl rand -hex 32 > FILE")
    return token


def _warm_up(predictor: "Predictor") -> None:
    """Open the detector's models, and compile what the first request would wait for."""
    import numpy as np

    grey = np.full((256, 256, 3), 128, np.uint8)
    predictor(grey)
    predictor(grey, boxes=[[64, 16, 192, 240]]).overlay()


def _places(predictor: "Predictor") -> int:
    """So many that all cores have work, and the last in the queue waits about as long as four images alone take."""
    cores = os.cpu_count() or 1
    return max(2 * cores, 4, 0 if predictor.device.type == "cpu" else predictor.batch)
