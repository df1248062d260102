"""What is done with images of a list, in this process or in another one: predict them, and write or return the results.

The same code does so for `dpmesh predict`, for each of its processes and for each actor of `dpmesh bulk`. Images are
taken in groups; people are batched across the images of a group, so that a group gives the same numbers everywhere.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from dpmesh.bulk.job import Job, Outcome, Task
from dpmesh.errors import DPMeshError, InputError
from dpmesh.inference.people_rows import Row, image_rows, run_of, table_text
from dpmesh.inference.predictor import Predictor, predict_stream
from dpmesh.inference.scene import Scene
from dpmesh.inference.scene_io import as_json

TRACEBACK = "DPMESH_TRACEBACK"
"""Environment variable: unexpected errors are raised."""


def do_tasks(predictor: Predictor, job: Job, tasks: Sequence[Task]) -> Iterator[Outcome]:
    """The outcome of each task, in order. An error is the outcome of its image alone, also an unexpected one."""
    for task, scene in zip(tasks, scenes_of(predictor, [task.path for task in tasks], job), strict=True):
        try:
            outcome = _outcome(job, task, scene)
        except DPMeshError as error:
            outcome = Outcome(task, str(error))
        del scene  # its memory is free before the next image is read
        yield outcome._replace(used=_used(job))


def scenes_of(
    predictor: Predictor, images: Sequence[Path | bytes], job: Job
) -> Iterator[Scene | DPMeshError]:
    """The scene or the error of each image, in order; people are batched across the images.

    Where anything unexpected happens in a group, each image is done alone, and the error is that of one image.
    """
    done = 0
    try:
        for _, scene in predict_stream(predictor, images, job.people, job.inputs, complete=bool(job.inputs)):
            done += 1
            yield scene
            del scene
        return
    except Exception:
        if os.environ.get(TRACEBACK):
            raise
    for image in images[done:]:
        yield _alone(predictor, image, job)


def _alone(predictor: Predictor, image: Path | bytes, job: Job) -> Scene | DPMeshError:
    try:
        ((_, scene),) = predict_stream(predictor, [image], job.people, job.inputs, complete=bool(job.inputs))
    except DPMeshError as error:
        return error
    except MemoryError:
        where = str(image) if isinstance(image, Path) else ""
        return InputError("does not fit into memory", where=where, fix="Shrink it, or use fewer --processes.")
    except Exception as error:  # noqa: BLE001  one image must not end a run of many
        return unexpected(error, str(image) if isinstance(image, Path) else "")
    return scene


def unexpected(error: Exception, where: str = "") -> InputError:
    """The error of an image, for one that is a fault of ours; with TRACEBACK set it is raised."""
    if os.environ.get(TRACEBACK):
        raise error
    what = f"unexpected {type(error).__name__}: {error}"[:300]
    return InputError(what, where=where, fix=f"Set {TRACEBACK}=1 to see where, and please report it.")


def rows_of(scene: Scene, image: str, result: str) -> tuple[tuple[Row, ...], tuple[str, dict[str, object]]]:
    """(rows of ROW_COLUMNS, run) of a scene."""
    plain = as_json(scene) | {"source": image}
    key, made = run_of(plain)
    return tuple(image_rows(plain, table_text(result), key)), (key, made)


def _outcome(job: Job, task: Task, scene: Scene | DPMeshError) -> Outcome:
    if isinstance(scene, DPMeshError):
        raise scene
    if task.formats:
        target = job.out / task.name
        folder = scene.save(
            target.parent, target.name, task.formats, task.overwrite, job.colour, glb_image=job.glb_image
        )
        outcome = Outcome(task, folder=str(folder))
    else:
        rows, run = rows_of(scene, str(task.path), task.name)
        outcome = Outcome(task, rows=rows, run=run)
    happened = tuple(scene.fallbacks.items())
    return outcome._replace(people=len(scene), fallbacks=happened, notes=tuple(scene.notes))


def _used(job: Job) -> frozenset[str]:
    """Entries of the keypoint file that this process has looked up."""
    keypoints = cast("Any", job.people.keypoints)
    if not isinstance(keypoints, (str, Path)):
        return frozenset()
    from dpmesh.inference.keypoints.files import open_keypoints

    try:
        return frozenset(open_keypoints(Path(keypoints), job.people.format).used)
    except InputError:
        return frozenset()
