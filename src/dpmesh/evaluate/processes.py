"""One protocol from start to result: alone, over several processes of this machine, or as torchrun's share."""

import multiprocessing
import os
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from queue import Empty

from dpmesh.errors import DPMeshError, InputError
from dpmesh.evaluate.folder import WORST, alone, clear, kept, prepare, refuse_foreign
from dpmesh.evaluate.report import RESULT, result, write
from dpmesh.evaluate.runner import (
    PARTS,
    Job,
    Opened,
    Say,
    merge,
    open_job,
    run_parts,
    torchrun,
)
from dpmesh.evaluate.worst_cases import draw_worst

_PATIENCE = timedelta(days=7)
"""How long a process of torchrun waits for the others: shares may differ by hours on different machines."""


def evaluate_job(job: Job, processes: int = 1, overwrite: bool = False, say: Say = print) -> Path | None:
    """The path of result.json, or None in a torchrun process other than the first.

    A finished result is kept unless `overwrite`; a killed run goes on. Raises DPMeshError.
    """
    several = torchrun()
    rank, world = several or (0, 1)
    if several is not None and processes > 1:
        raise InputError("--processes under torchrun", fix="Leave it out: torchrun starts the processes.")
    with ExitStack() as held:
        # One process holds the folder for all that belong to this evaluation.
        if rank == 0 and not kept(job, overwrite, say):
            refuse_foreign(job.folder)  # no lock is left in what is not ours
            held.enter_context(alone(job.folder))
            prepare(job, overwrite, say)
        if several is not None:
            _meet(world)  # nobody begins in a folder that is being emptied
        if (job.folder / RESULT).is_file():
            return job.folder / RESULT if rank == 0 else None
        if processes > 1:
            _spawn(job, processes, say)
        opened = open_job(job, int(os.environ.get("LOCAL_RANK", 0)) if several else 0)
        if processes == 1:
            run_parts(opened, rank, world, say)
        if several is not None:
            _meet(world)
        return _finish(opened) if rank == 0 else None


def _finish(opened: Opened) -> Path:
    rows = merge(opened)
    clear(opened.job.folder, WORST)
    draw_worst(opened, rows)
    path = write(opened, rows, result(opened, rows))
    clear(opened.job.folder, PARTS)  # rows.npz holds them now
    return path


def _spawn(job: Job, processes: int, say: Say) -> None:
    """Every process opens its own model and source. Raises the first one's error."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    workers = [context.Process(target=_work, args=(job, rank, processes, told)) for rank in range(processes)]
    for worker in workers:
        worker.start()
    errors: list[DPMeshError] = []
    try:
        running = processes
        while running:
            try:
                message = told.get(timeout=1)
            except Empty:  # a worker that was killed says nothing
                if any(w.exitcode not in (None, 0) for w in workers):
                    break
                continue
            if message is None or isinstance(message, DPMeshError):
                running -= 1
                errors += [message] if message is not None else []
            else:
                say(message)
    finally:
        for worker in workers:
            if errors or any(w.exitcode not in (None, 0) for w in workers):
                worker.terminate()
            worker.join()
    if errors:
        raise errors[0]
    if any(worker.exitcode for worker in workers):
        raise InputError(
            "a process of the evaluation was ended from outside",
            where=str(job.folder),
            fix="Run the command again: what was done is kept.",
        )


def _work(job: Job, rank: int, world: int, told: "multiprocessing.Queue[str | DPMeshError | None]") -> None:
    try:
        run_parts(open_job(job, rank), rank, world, told.put)
    except DPMeshError as error:
        told.put(error)
    else:
        told.put(None)


def _meet(world: int) -> None:
    """Wait until all of torchrun's processes are here."""
    import torch.distributed as distributed

    if world > 1:
        if not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=_PATIENCE)
        distributed.barrier()
