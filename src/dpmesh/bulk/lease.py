"""One run at a time on an output in an object store, where no lock of an operating system reaches.

A run writes `_lease.json` with a number of its own, writes it anew every few seconds, and removes it at its end. A
second run watches a lease that it finds: one that changes belongs to a living run; one that does not was left by a run
that was killed, and is taken over. No clocks are compared.

This guards against a second start by mistake. It is no lock: stores behind pyarrow have no create-if-absent, so of two
runs that start within the same second or two both may go on. A run that could not write for longer than another one
watches (its machine slept, its network was cut) finds the other's lease, and ends.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

from dpmesh.bulk.storage import Place, read, write
from dpmesh.errors import DPMeshError, OutputError
from dpmesh.io import parse_json

LEASE = "_lease.json"
PERIOD = 10.0
"""Seconds between two writings of a lease."""
_WATCHED = 3.5
"""Periods for which a lease must not change to be taken over."""
_LARGEST = 10_000


class Lease:
    """A lease that is held, kept by a thread."""

    def __init__(self, out: Place) -> None:
        self._out, self._place, self._period = out, out / LEASE, PERIOD
        self._own = secrets.token_hex(8)
        self._count = 0
        self._ended = threading.Event()
        self._lost = ""
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def take(self) -> None:
        """Raises OutputError where another run holds it, or the output cannot be reached."""
        if found := self._other():
            until = time.monotonic() + _WATCHED * self._period
            while time.monotonic() < until:
                time.sleep(self._period / 5)
                now = self._other()
                if not now:
                    break
                if now != found:
                    raise self._refused(now)
        self._write()
        time.sleep(
            self._period / 10
        )  # another run may have started at the same time: the later writer goes on
        if other := self._other():
            raise self._refused(other)
        self._thread.start()

    def check(self) -> None:
        """Raise OutputError where another run has taken the lease over."""
        if self._lost:
            fix = "Run it again when that one has ended."
            raise OutputError(
                f"another run has taken this output over ({self._lost})", where=self._out.name, fix=fix
            )

    def close(self) -> None:
        """Remove the lease, unless it is another run's."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(OSError, DPMeshError):
            if not self._lost and not self._other():
                self._place.fs.delete_file(self._place.path)

    def _keep(self) -> None:
        while not self._ended.wait(self._period):
            with suppress(DPMeshError):  # for now it cannot be reached
                if other := self._other():
                    self._lost = _words(other)
                    return
                self._write()

    def _write(self) -> None:
        self._count += 1
        content = {
            "run": self._own,
            "count": self._count,
            "machine": socket.gethostname(),
            "process": os.getpid(),
        }
        write(self._place, json.dumps(content).encode())

    def _other(self) -> dict[str, object]:
        """The content of another run's lease; empty without one. Raises OutputError where it cannot be read."""
        from pyarrow.fs import FileType

        try:
            if self._place.fs.get_file_info(self._place.path).type == FileType.NotFound:
                return {}
            content = parse_json(read(self._place, _LARGEST), self._place.name)
        except FileNotFoundError:
            return {}
        except (OSError, DPMeshError) as error:
            raise OutputError(
                f"cannot be read ({error})"[:300],
                where=self._place.name,
                fix="Remove it if no run is using this output.",
            ) from None
        other = content if isinstance(content, dict) else {"run": content}
        return {} if other.get("run") == self._own else other

    def _refused(self, other: dict[str, object]) -> OutputError:
        return OutputError(
            f"another bulk run is writing here ({_words(other)})",
            where=self._out.name,
            fix="Wait for it, or choose another output.",
        )


def _words(lease: dict[str, object]) -> str:
    return f"process {lease.get('process')} on {lease.get('machine')}"


@contextmanager
def lease_on(out: Place) -> Generator[Lease]:
    """Hold the output for this run; raises OutputError where another one holds it, or it cannot be reached."""
    lease = Lease(out)
    try:
        lease.take()
        yield lease
    finally:
        lease.close()
