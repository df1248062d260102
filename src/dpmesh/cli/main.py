"""`dpmesh VERB`. Importing this module costs nothing: a verb's module is imported only when it is called."""

import argparse
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
"""Environment variable: an error that was not foreseen is raised instead of told in a line."""

VERBS = {
    "predict": "pictures in, bodies out: overlays, meshes, parameters",
    "attention": "where the model looks for each joint, over each person",
    "compare": "several weights or methods on the same people of your images: sheets as in a paper",
    "inspect": "parameters, work and provenance of a model",
    "train": "train a model from a configuration file, resumable",
    "eval": "measure a model on the published benchmarks, exactly stated; compare, tables",
    "bench": "how the error grows when keypoints, crop or picture get worse: plots, two models beside",
    "convert": "bring weights: a released checkpoint, or Stable Diffusion 1.5 as a start",
    "export": "a model as an ONNX file, for programs without torch",
    "data": "check the training sets, and pack them for fast loading",
    "assets": "bring your own licensed files, and see which are there",
}
"""Verb -> one line of help. The verb's module offers add_arguments(parser) and run(args) -> exit status."""


class _OneLineParser(argparse.ArgumentParser):
    """A wrong argument is one line on stderr and status 2; the usage is for --help."""

    def print_help(self, file: "SupportsWrite[str] | None" = None) -> None:
        """argparse's own swallows it when the help cannot be written."""
        (file or sys.stdout).write(self.format_help())

    def error(self, message: str) -> NoReturn:
        line = printable(" ".join(message.split()))
        self.exit(2, f"{self.prog}: {line} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0 done, 1 failed, 2 wrong argument, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    open_streams()
    try:
        try:
            status = _run(words)
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
    except Exception as error:  # the last line of defence, for all verbs
        if os.environ.get(TRACEBACK):
            raise
        return _fail_unforeseen(error)


def fail(message: str, status: int = 1) -> int:
    """One line on stderr, without control characters; returns the status."""
    try:
        flush_stdout()
    except OSError:
        discard_stdout()
    with suppress(OSError):
        print("dpmesh: " + printable(" ".join(message.split())), file=sys.stderr)
    return status


def _fail_unforeseen(error: Exception) -> int:
    if isinstance(error, MemoryError):
        return fail("there is not enough memory. Try smaller images, or fewer people at once.")
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


def _run(words: list[str]) -> int:
    if not words or words[0] not in VERBS:
        return _top(words)
    module = importlib.import_module(f"dpmesh.cli.{words[0]}")
    parser = _OneLineParser(
        prog=f"dpmesh {words[0]}", description=VERBS[words[0]].capitalize() + ".", allow_abbrev=False
    )
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(words[1:])))


def _top(words: list[str]) -> int:
    """No verb: help, version, or what is wrong."""
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {verb:<{width}}{line}" for verb, line in VERBS.items())
    parser = _OneLineParser(
        prog="dpmesh",
        usage="dpmesh VERB ... (dpmesh VERB --help tells more)",
        description="Bodies of people in photographs, also where they are hidden.",
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
