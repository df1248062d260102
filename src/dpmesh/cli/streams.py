"""Standard streams that are safe to write to: also when closed, full, or of an encoding that lacks a character."""

import os
import sys
from contextlib import suppress

from dpmesh.errors import printable

_NAMES = ("stdin", "stdout", "stderr")


def say(line: str, *, error: bool = False) -> None:
    """Print a line on stdout or stderr; control characters, for instance of a file name, are escaped."""
    print(printable(line), file=sys.stderr if error else sys.stdout)


def open_streams() -> None:
    """Open closed standard streams on the null device, and escape what a stream cannot encode.

    Otherwise the next file to be opened would get the closed stream's number, and what a library prints would end up in
    that file.
    """
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="backslashreplace")


def discard_stdout() -> None:
    """Discard what is left in the buffer: Python would report at exit that it cannot be written."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def flush_stdout() -> None:
    """Write the buffer now. Raises OSError where that fails; Python itself notices only when the buffer is full."""
    with suppress(ValueError):  # closed already
        sys.stdout.flush()
