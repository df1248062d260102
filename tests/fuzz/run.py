"""Fuzzing of every file reader: python tests/fuzz/run.py --mutations 2000 --kinds images,toml --seed 0

A case is a damaged file. Its name KIND:SEED:NUMBER reproduces it; --case reruns one and keeps its folder. A reader may
return, or raise DPMeshError with a message of one line. Everything else is a fault: another exception, an invalid
result, a crash, a hang, memory above the limit, an executed pickle. Exit status 1 with faults.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import resource
import select
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from kinds import KINDS, Files, Kind
from mutate import MARKER, mutate

from dpmesh.errors import LONGEST, DPMeshError

__all__ = ["KINDS", "Kind", "main"]

MEMORY = 2 * 2**30
"""Bytes that a case may allocate."""


@dataclass
class Fault:
    case: str
    what: str


def write_case(kind: str, seed: int, number: int, seeds: list[Files], folder: Path) -> None:
    """Write the files of one case; numbers below 0 are the undamaged seeds."""
    rng = random.Random(f"{kind}:{seed}:{number}")
    files = dict(seeds[-number - 1] if number < 0 else rng.choice(seeds))
    chosen = rng.choice([name for name in files if name in KINDS[kind].targets or not KINDS[kind].targets])
    if number >= 0:
        files[chosen] = mutate(chosen, files[chosen], rng)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if number >= 0 and rng.random() < 0.02:
        _replace(folder / chosen, rng)


def _replace(path: Path, rng: random.Random) -> None:
    """Replace the file by a folder, a pipe, a symbolic link or nothing."""
    path.unlink()
    how = rng.randrange(5)
    if how == 0:
        path.mkdir()
    elif how == 1:
        os.mkfifo(path)
    elif how == 2:
        path.symlink_to("/dev/zero")
    elif how == 3:
        path.symlink_to(path.name)


def run_case(kind: str, folder: Path, damaged: bool = True) -> str:
    """Read one case in its folder. Returns the fault, "" without one; an undamaged file that is refused is a fault."""
    os.chdir(folder)
    wrong = ""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            KINDS[kind].call(folder)
    except DPMeshError as error:
        line = " ".join(str(error).split())
        if not damaged:
            wrong = f"the undamaged seed is refused: {line}"
        elif not line or len(line) > LONGEST:
            wrong = f"a message of {len(line)} characters: {line[:200]}"
        elif not line.isprintable():
            wrong = f"a message that is not printable: {line[:200]!r}"
    except (SystemExit, KeyboardInterrupt, Exception) as error:  # noqa: BLE001 (any exception is a fault)
        last = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in last if "/dpmesh/" in frame.filename] or list(last)
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        wrong = f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:160]}"
    if any(folder.rglob(MARKER)):
        return "code of the file was run"
    return wrong


class Worker:
    """A forked process that runs cases and reports the start and the fault of each through a pipe."""

    def __init__(self, kind: str, seed: int, numbers: list[int], seeds: list[Files], place: Path) -> None:
        self.numbers, self.now, self.since = numbers, -2, time.monotonic()
        self.folder = place
        read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(read)
                _work(kind, seed, numbers, seeds, place, write)
                status = 0
            finally:
                os._exit(status)
        os.close(write)
        self.pipe = os.fdopen(read, "rb", buffering=0)
        self.rest = b""

    def lines(self) -> Iterator[str]:
        self.rest += self.pipe.read(65536) or b""
        *complete, self.rest = self.rest.split(b"\n")
        for line in complete:
            yield line.decode("utf-8", "replace")

    def stop(self) -> int:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.pipe.close()
        return os.waitpid(self.pid, 0)[1]


def _work(kind: str, seed: int, numbers: list[int], seeds: list[Files], place: Path, write: int) -> None:
    torch.set_num_threads(1)
    quiet = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(quiet, handle)
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**28, 2**28))
    for number in numbers:
        os.write(write, f"start {number}\n".encode())
        folder = place / str(number)
        folder.mkdir(parents=True)
        write_case(kind, seed, number, seeds, folder)
        wrong = run_case(kind, folder, number >= 0)
        os.chdir(place)
        clear(folder)
        os.write(write, f"end {number} {wrong[:2000]}\n".encode("utf-8", "replace"))


def clear(folder: Path) -> None:
    for path in folder.rglob("*"):
        if not path.is_symlink() and stat.S_ISDIR(path.lstat().st_mode):
            path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def fuzz(
    kind: str, seed: int, count: int, processes: int, patience: float, until: float
) -> tuple[int, list[Fault]]:
    """Number of cases run, and the faults. until: time.monotonic() after which no case starts."""
    seeds = _make_seeds(kind)
    faults: list[Fault] = []
    done = 0
    with tempfile.TemporaryDirectory(prefix="dpmesh-fuzz-") as name:
        shares = [list(range(-len(seeds), count))[i::processes] for i in range(processes)]
        workers = {
            i: Worker(kind, seed, share, seeds, Path(name) / f"{i}-0")
            for i, share in enumerate(shares)
            if share
        }
        restarts = 0
        while workers:
            pipes = {worker.pipe: i for i, worker in workers.items()}
            ready, _, _ = select.select(list(pipes), [], [], 0.2)
            for i, worker in list(workers.items()):
                ended = False
                if worker.pipe in ready:
                    for line in worker.lines():
                        word, number, *wrong = line.split(" ", 2)
                        worker.now, worker.since = int(number), time.monotonic()
                        if word == "end":
                            done += 1
                            worker.numbers = [n for n in worker.numbers if n != int(number)]
                            if wrong and wrong[0]:
                                faults.append(Fault(f"{kind}:{seed}:{number}", wrong[0]))
                    ended = _has_ended(worker)
                hung = not ended and time.monotonic() - worker.since > patience
                late = time.monotonic() > until
                if not (ended or hung or late):
                    continue
                status = worker.stop()
                del workers[i]
                if late or not worker.numbers:
                    continue
                what = (
                    f"hangs (no end after {patience:g} s)"
                    if hung
                    else f"the process died ({_status(status)})"
                )
                faults.append(Fault(f"{kind}:{seed}:{worker.now}", what))
                done += 1
                rest = [n for n in worker.numbers if n != worker.now]
                if rest:
                    restarts += 1
                    workers[i] = Worker(kind, seed, rest, seeds, Path(name) / f"{i}-{restarts}")
    return done, faults


def _make_seeds(kind: str) -> list[Files]:
    """The seeds, made in another process: libraries that this process has used might not survive the next fork."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(KINDS[kind].seeds)


def _has_ended(worker: Worker) -> bool:
    """Whether the worker has closed its pipe."""
    ready, _, _ = select.select([worker.pipe], [], [], 0)
    if not ready:
        return False
    peek = worker.pipe.read(65536)
    worker.rest += peek or b""
    return not peek


def _status(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"status {os.WEXITSTATUS(status)}"


def rerun(case: str) -> int:
    """Run one case in this process and keep its folder."""
    kind, seed, number = case.split(":")
    folder = Path(tempfile.mkdtemp(prefix="dpmesh-fuzz-case-"))
    write_case(kind, int(seed), int(number), KINDS[kind].seeds(), folder)
    print(f"{case}: {folder}", *sorted(str(p.relative_to(folder)) for p in folder.rglob("*")))
    os.chdir(folder)
    KINDS[kind].call(folder)
    print("read without an error")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--mutations", type=int, default=2000, metavar="N", help="of each kind (default: 2000)")
    add("--kinds", default=",".join(KINDS), metavar="LIST", help=f"of {','.join(KINDS)} (default: all)")
    add("--seed", type=int, default=0, help="default: 0")
    add("--seconds", type=float, default=float("inf"), help="for all kinds together (default: no limit)")
    add(
        "--patience",
        type=float,
        default=20,
        metavar="S",
        help="seconds until a case counts as hanging (default: 20)",
    )
    add("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="default: one a core")
    add("--case", metavar="KIND:SEED:NUMBER", help="rerun this case in this process and keep its files")
    args = parser.parse_args()
    if args.case:
        return rerun(args.case)
    kinds = args.kinds.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"unknown kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    with tempfile.TemporaryDirectory(prefix="dpmesh-fuzz-") as place:
        tempfile.tempdir = place
        return _all(kinds, args)


def _all(kinds: list[str], args: argparse.Namespace) -> int:
    end, total = time.monotonic() + args.seconds, 0
    for i, kind in enumerate(kinds):
        start = time.monotonic()
        share = start + max(0.0, end - start) / (len(kinds) - i)  # time that one kind leaves goes to the next
        done, faults = fuzz(kind, args.seed, args.mutations, args.processes, args.patience, share)
        total += len(faults)
        print(f"{kind}: {done} cases in {time.monotonic() - start:.0f} s, {len(faults)} faults", flush=True)
        _print_faults(faults)
    return 1 if total else 0


def _print_faults(faults: list[Fault]) -> None:
    """Print the faults grouped by location: their number and the first case."""
    place = Counter(fault.what.split(": ")[0] for fault in faults)
    for what, count in place.most_common():
        first = next(fault for fault in faults if fault.what.split(": ")[0] == what)
        print(f"  {count} × {first.what}\n      {first.case}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
