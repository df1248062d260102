"""Runs an evaluation: people in batches through a model, in parts that are saved, by one process or several.

A person is always in a batch with the same others, whatever the number of processes, and each part belongs to one
process. The result is therefore the same to the bit, and no person is counted twice. Parts are written atomically, so
a killed run continues where it stopped.
"""

import multiprocessing
import os
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import torch

from dpmesh.errors import DPMeshError, InputError
from dpmesh.evaluate.checks import one_line
from dpmesh.evaluate.evaluation import Evaluation, EvaluationConfig, Say, open_evaluation
from dpmesh.evaluate.folder import PARTS, WORST, clear, exclusive, is_finished, prepare, refuse_foreign
from dpmesh.evaluate.report import RESULT, result, write
from dpmesh.evaluate.results import Rows, concatenate, inputs_of, load, predicted, save, score
from dpmesh.evaluate.synthocc_video import ClipSource
from dpmesh.evaluate.worst_cases import draw_worst

_TIMEOUT = timedelta(days=7)
"""How long a torchrun process waits for the others: their shares may differ by hours on different machines."""


def run_evaluation(
    config: EvaluationConfig, processes: int = 1, overwrite: bool = False, say: Say = print
) -> Path | None:
    """Evaluate and write the result folder. Returns the path of result.json; None in torchrun's processes but the
    first.

    A finished result is kept unless `overwrite`; a killed run continues. Raises DPMeshError.
    """
    launched = torchrun()
    rank, world = launched or (0, 1)
    if launched is not None and processes > 1:
        raise InputError("--processes under torchrun", fix="Leave it out: torchrun starts the processes.")
    with ExitStack() as held:
        # Rank 0 locks the folder for all processes of this evaluation.
        if rank == 0 and not is_finished(config, overwrite, say):
            refuse_foreign(config.folder)  # before a lock is left in a folder that is not ours
            held.enter_context(exclusive(config.folder))
            prepare(config, overwrite, say)
        if launched is not None:
            _barrier(world)  # the folder has been cleared
        if (config.folder / RESULT).is_file():
            return config.folder / RESULT if rank == 0 else None
        if processes > 1:
            spawn_workers(config, processes, say)
        evaluation = open_evaluation(config, int(os.environ.get("LOCAL_RANK", 0)) if launched else 0)
        if processes == 1:
            run_parts(evaluation, rank, world, say)
        if launched is not None:
            _barrier(world)
        return _finish(evaluation) if rank == 0 else None


def torchrun() -> tuple[int, int] | None:
    """(rank, world) where torchrun started this process, else None."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def run_parts(evaluation: Evaluation, rank: int, world: int, say: Say = lambda _: None) -> None:
    """Compute the missing ones of this process's parts: number rank, rank + world, ..."""
    folder, header = evaluation.config.folder / PARTS, evaluation.header
    mine = list(enumerate(evaluation.parts))[rank::world]
    for done, (number, indices) in enumerate(mine, start=1):
        path = folder / f"part-{number:05d}.npz"
        if not path.is_file():
            save(path, evaluate(evaluation, indices), {**header, "part": number})
        else:
            require_header(path, load(path)[1], {**header, "part": number})
        say(
            f"{one_line(evaluation.protocol.full_name)}: part {done} of {len(mine)}"
            f" ({indices.stop} of {evaluation.count} people)"
        )


@torch.inference_mode()
def evaluate(evaluation: Evaluation, indices: range) -> Rows:
    """Rows of some people; `indices` begins at a multiple of the batch size."""
    measure, source = evaluation.protocol.measure, evaluation.source
    if isinstance(source, ClipSource):
        assert evaluation.predictor is not None
        return source.rows(indices, evaluation.config.method, evaluation.predictor)
    rows: list[Rows] = []
    for start in range(indices.start, indices.stop, evaluation.config.batch):
        batch = list(range(start, min(start + evaluation.config.batch, indices.stop)))
        persons = source.persons(batch)
        prediction = evaluation.model(inputs_of(persons, evaluation.model.camera, evaluation.device))
        rows.append(score(measure, batch, persons, predicted(measure, evaluation.model, prediction, persons)))
    return concatenate(rows)


def merge(evaluation: Evaluation) -> Rows:
    """All parts as one. Raises InputError unless they hold every person exactly once."""
    folder, header = evaluation.config.folder / PARTS, evaluation.header
    parts: list[Rows] = []
    for number in range(len(evaluation.parts)):
        path = folder / f"part-{number:05d}.npz"
        if not path.is_file():
            raise InputError("a part of the run is missing", where=str(path), fix="Run the command again.")
        rows, stored = load(path)
        require_header(path, stored, {**header, "part": number})
        parts.append(rows)
    joined = concatenate(parts)
    if not np.array_equal(joined.index, np.arange(evaluation.count)):
        raise InputError(
            "the parts do not hold every person exactly once",
            where=str(folder),
            fix="Delete the folder and run again.",
        )
    return joined


def require_header(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise InputError for a part of another run."""
    for name, value in wanted.items():
        if stored.get(name) != value:
            raise InputError(
                f"this part is of another run, with another {name} ({stored.get(name)!r}; now {value!r})",
                where=str(path),
                fix="Choose another --out, or --overwrite.",
            )


def _finish(evaluation: Evaluation) -> Path:
    rows = merge(evaluation)
    clear(evaluation.config.folder, WORST)
    if not isinstance(evaluation.source, ClipSource):
        draw_worst(evaluation, rows)
    path = write(evaluation, rows, result(evaluation, rows))
    clear(evaluation.config.folder, PARTS)  # rows.npz holds them now
    return path


def spawn_workers(config: EvaluationConfig, processes: int, say: Say) -> None:
    """Run all parts in worker processes, each with its own model and source. Raises the first worker's error."""
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    workers = [
        context.Process(target=work, args=(config, rank, processes, messages)) for rank in range(processes)
    ]
    for worker in workers:
        worker.start()
    errors: list[DPMeshError] = []
    try:
        running = processes
        while running:
            try:
                message = messages.get(timeout=1)
            except Empty:  # a killed worker sends no message
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
            "a worker process of the evaluation was killed",
            where=str(config.folder),
            fix="Run the command again: finished parts are kept.",
        )


def work(
    config: EvaluationConfig,
    rank: int,
    world: int,
    messages: "multiprocessing.Queue[str | DPMeshError | None]",
) -> None:
    """A worker's main: puts lines of progress, then None or its error."""
    try:
        run_parts(open_evaluation(config, rank), rank, world, messages.put)
    except DPMeshError as error:
        messages.put(error)
    else:
        messages.put(None)


def _barrier(world: int) -> None:
    """Wait until all of torchrun's processes are here."""
    import torch.distributed as distributed

    if world > 1:
        if not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=_TIMEOUT)
        distributed.barrier()
