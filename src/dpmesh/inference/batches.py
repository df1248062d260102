"""Images in a stream: prepared one by one, their people predicted in batches across images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from os import PathLike
from pathlib import Path
from typing import Any

from dpmesh.errors import DPMeshError, InputError
from dpmesh.inference.image_sources import source_path
from dpmesh.inference.preprocess import ImageSource, PreparedImage
from dpmesh.inference.scene import Scene

MAX_WAITING_IMAGES, MAX_WAITING_BYTES = 16, 256 * 2**20
"""How many decoded images, and of how many bytes, may wait until a batch of people is full."""


@dataclass(frozen=True)
class _Waiting:
    """An image whose people wait for a batch, or the error that it gave."""

    source: Any
    content: PreparedImage | DPMeshError


def predict_in_batches(
    images: Iterable[ImageSource],
    prepare: Callable[[ImageSource, bool], PreparedImage],
    predict: Callable[[list[PreparedImage]], list[Scene]],
    batch: int,
    one_image: str = "",
) -> Iterator[tuple[Any, Scene | DPMeshError]]:
    """(image, its scene or its error) for each image, in order; a path comes back as a Path.

    At most MAX_WAITING_IMAGES decoded images wait until a batch is full, and no further one is read once they take
    MAX_WAITING_BYTES.

    prepare: gets an image and whether it is the only one. batch: people. one_image: an option that belongs to one
    image; InputError if there are more.
    """
    rest = iter(images)
    first = list(islice(rest, 2))
    only_image = len(first) == 1
    if len(first) > 1 and one_image:
        fix = "Predict one image at a time, or use a file that names its images."
        raise InputError("an array is of one image, and there are several", where=one_image, fix=fix)
    rest = chain(first, rest)
    del first
    waiting: list[_Waiting] = []
    for image in rest:
        source = Path(image) if isinstance(image, str) else image
        waiting.append(_Waiting(source, _prepared(prepare, source, only_image)))
        if _is_full(waiting, batch):
            yield from _finish(waiting, predict)
    yield from _finish(waiting, predict)


def append_paths(images: Iterable[ImageSource], names: list[str]) -> Iterator[ImageSource]:
    """The same images; the path of each is appended to `names`."""
    for image in images:
        names.append(source_path(image))
        yield image


def _prepared(
    prepare: Callable[[ImageSource, bool], PreparedImage], image: ImageSource, only_image: bool
) -> PreparedImage | DPMeshError:
    try:
        return prepare(image, only_image)
    except DPMeshError as error:
        return error


def _is_full(waiting: Sequence[_Waiting], batch: int) -> bool:
    images = [entry.content for entry in waiting if isinstance(entry.content, PreparedImage)]
    return (
        len(waiting) >= MAX_WAITING_IMAGES
        or sum(len(prepared.people) for prepared in images) >= batch
        or sum(prepared.image.rgb.nbytes for prepared in images) >= MAX_WAITING_BYTES
    )


def _finish(
    waiting: list[_Waiting], predict: Callable[[list[PreparedImage]], list[Scene]]
) -> Iterator[tuple[Any, Scene | DPMeshError]]:
    """Predict and empty `waiting`. Keeps no reference to an image that has been yielded."""
    images = [entry.content for entry in waiting if isinstance(entry.content, PreparedImage)]
    scenes = predict(images)
    del images
    errors = [
        (entry.source, None if isinstance(entry.content, PreparedImage) else entry.content)
        for entry in waiting
    ]
    waiting.clear()
    for source, error in errors:
        yield source, scenes.pop(0) if error is None else error


def scene_or_raise(result: Scene | DPMeshError, item: str) -> Scene:
    """The scene of one image of a list; raises its error with the name of the item."""
    if isinstance(result, Scene):
        return result
    where = f"{item}, {result.where}" if result.where else item
    raise type(result)(result.what, where=where, fix=result.fix) from result


def refuse_single_image(images: object) -> None:
    """Raise InputError for one image in place of an iterable of images: its rows, bytes or letters are no images."""
    single = isinstance(images, (str, bytes, PathLike)) or hasattr(images, "read")
    if single or not hasattr(images, "__iter__") or getattr(images, "ndim", 4) < 4:
        what = f"{type(images).__name__} is not a list or another iterable of images"
        raise InputError(what, where="images", fix="For one image call the predictor itself.")
