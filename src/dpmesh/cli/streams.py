"""Standard streams that nothing can upset: closed, full, or of an encoding that lacks a name's characters."""

import os
import sys
from contextlib import suppress

from dpmesh.errors import printable

_NAMES = ("stdin", "stdout", "stderr")


def say(line: str, *, error: bool = False) -> None:
    """A line on stdout or stderr in which no name of a file or in a file steers the terminal."""
    print(printable(line), file=sys.stderr if error else sys.stdout)


def open_streams() -> None:
    """A standard stream that the caller closed leads to the null device: the next file to be opened would get its
    number, and what a library prints would end up in that file. What a stream cannot encode is escaped."""
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
    """What is left in the buffer goes nowhere: Python would complain at exit that it cannot be written."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def flush_stdout() -> None:
    """Raises OSError where the output cannot be written, which Python notices only when its buffer is full."""
    with suppress(ValueError):  # closed already
        sys.stdout.flush()
