"""`dpmesh VERB`. This module is light: a verb's module is imported only when it is called."""

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from dpmesh.cli.streams import discard_stdout, flush_stdout, open_streams
from dpmesh.errors import DPMeshError, printable

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

TRACEBACK = "DPMESH_TRACEBACK"
"""Environment variable: an unexpected error is raised with its traceback instead of printed as one line."""

VERBS = {
    "predict": "recover body meshes from images: overlays, meshes, parameters",
    "bulk": "recover body meshes from very many images, on a cluster (Ray): a table as Parquet",
    "video": "recover bodies from videos: tracks of people, overlays, animations",
    "serve": "serve images and videos over HTTP, with a page to try it",
    "view": "show a result in the browser, or make one HTML page of it",
    "attention": "show the model's cross-attention maps of each joint",
    "compare": "show several models or methods side by side on the people of your images",
    "inspect": "show a model's parameters, work and provenance",
    "train": "train a model from a configuration file; an interrupted run resumes",
    "eval": "evaluate a model on published benchmarks (versioned protocols), compare results, print tables",
    "bench": "measure how errors grow as keypoints, crops or images get worse",
    "convert": "convert weights: a released checkpoint, or Stable Diffusion 1.5 for training",
    "export": "export a model as an ONNX file, for programs without torch",
    "data": "check training sets, and pack them for fast loading",
    "assets": "import your own licensed files, and list which are there",
}
"""Verb -> one line of help. A verb's module has add_arguments(parser) and run(args) -> exit status."""


class _OneLineParser(argparse.ArgumentParser):
    """A wrong argument is one line on stderr and status 2; the usage is for --help."""

    def print_help(self, file: "SupportsWrite[str] | None" = None) -> None:
        """Raises OSError when the help cannot be written; argparse's own ignores it."""
        (file or sys.stdout).write(self.format_help())

    def error(self, message: str) -> NoReturn:
        line = printable(" ".join(message.split()))
        self.exit(2, f"{self.prog}: {line} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0 done, 1 failed, 2 wrong argument, 130 interrupted."""
    if argv is None:  # A program of its own: importing torch makes a million objects that stay.
        gc.set_threshold(100_000, 20, 20)  # Python's own 700, 10, 10 costs a tenth of the start-up.
    words = list(sys.argv[1:] if argv is None else argv)
    open_streams()
    try:
        try:
            status = run_verb(words)
        except SystemExit:  # --help, and wrong arguments
            flush_stdout()
            raise
        flush_stdout()
        return status
    except DPMeshError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except BrokenPipeError:  # `dpmesh ... | head`
        discard_stdout()
        return 1
    except Exception as error:  # anything a verb did not expect
        if os.environ.get(TRACEBACK):
            raise
        return _fail_unexpected(error)


def fail(message: str, status: int = 1) -> int:
    """One line on stderr, without control characters; returns the status."""
    try:
        flush_stdout()
    except OSError:
        discard_stdout()
    with suppress(OSError):
        print("dpmesh: " + printable(" ".join(message.split())), file=sys.stderr)
    return status


def _fail_unexpected(error: Exception) -> int:
    if isinstance(error, MemoryError):
        return fail("not enough memory. Try smaller images, or fewer people at once.")
    if isinstance(error, OSError):
        from dpmesh.io import reason

        where = "standard output"
        if error.filename is not None:
            where = str(error.filename)[:200]
        else:
            try:
                flush_stdout()
                where = ""
            except OSError:
                discard_stdout()
        return fail(f"{printable(where)}: {reason(error)}" if where else reason(error))
    what = f"{type(error).__name__}: {error}"[:300]
    return fail(f"unexpected {what}. Set {TRACEBACK}=1 to see where, and please report it.")


def run_verb(words: list[str]) -> int:
    if not words or words[0] not in VERBS:
        return _top(words)
    verb, rest = words[0], words[1:]
    module, parser = importlib.import_module(f"dpmesh.cli.{verb}"), parser_of(verb)
    settings: list[tuple[str, str]] = []
    if getattr(module, "TAKES_SETTINGS", False):
        from dpmesh.cli.arguments import split_settings

        rest, settings = split_settings(rest)
    args = parser.parse_args(rest, argparse.Namespace(settings=settings))
    return int(module.run(args))


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser of a verb's arguments."""
    line = VERBS[verb]
    parser = _OneLineParser(
        prog=f"dpmesh {verb}", description=line[0].upper() + line[1:] + ".", allow_abbrev=False
    )
    importlib.import_module(f"dpmesh.cli.{verb}").add_arguments(parser)
    return parser


def _top(words: list[str]) -> int:
    """No verb: help, version, or what is wrong."""
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {verb:<{width}}{line}" for verb, line in VERBS.items())
    parser = _OneLineParser(
        prog="dpmesh",
        usage="dpmesh VERB ... (dpmesh VERB --help: its arguments)",
        description="Recover 3D human meshes from photographs, even under occlusion.",
        epilog=f"verbs:\n{verbs}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    if words and not words[0].startswith("-"):
        parser.error(f"unknown verb {words[0]!r}; there are {', '.join(VERBS)}")
    if parser.parse_args(words).version:
        from importlib.metadata import version

        print(f"dpmesh {version('dpmesh')}")
    else:
        parser.print_help()
    return 0
