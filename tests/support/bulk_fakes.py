"""A predictor for worker processes, whose images tell by their width what happens to the process; runs with it."""

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from fakes import FakeDetector, FakeModel
from fsspec import register_implementation
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

from dpmesh.bulk.album import Album
from dpmesh.bulk.job import Job
from dpmesh.inference.detections import DetectionResult
from dpmesh.inference.image_list import result_names
from dpmesh.inference.options import ModelOptions
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.row_parts import ROWS

KILLS, RAISES, SLOW, KILLS_ONCE, EMPTY = 31, 33, 35, 37, 5
"""Widths: the process is killed; an unexpected error; a tenth of a second; killed once; no person."""


class TouchyDetector(FakeDetector):
    def __call__(self, image: np.ndarray, max_people: int = 20) -> DetectionResult:
        width = image.shape[1]
        if width == KILLS or (width == KILLS_ONCE and not _was_here()):
            os.kill(os.getpid(), signal.SIGKILL)
        if width == RAISES:
            raise ValueError("no such colour")
        if width == SLOW:
            time.sleep(0.1)
        return super().__call__(image, max_people)


def _was_here() -> bool:
    """Whether this was called before, by any process of the test."""
    marker = Path(os.environ["DPMESH_TEST_MARKER"])
    there = marker.exists()
    marker.touch()
    return there


def touchy_predictor(options: ModelOptions) -> Predictor:
    detector = TouchyDetector([(0.1, 0.1, 0.4, 0.9), (0.5, 0.1, 0.9, 0.9)])
    return Predictor(FakeModel(), detector, "fake", 4, options=options.record())  # pyright: ignore[reportArgumentType]


def no_predictor(options: ModelOptions) -> Predictor:
    """The process is killed while it loads the model."""
    os._exit(9)


def write_photo(path: Path, width: int = 40, shade: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((30 if width > EMPTY else 5, width, 3), shade, np.uint8)).save(path, "PNG")
    return path


def album(job: Job, photos: Sequence[Path], formats: Sequence[str] = (), *, overwrite: bool = False) -> Album:
    return Album(job, result_names(dict.fromkeys(photos, "")), formats, overwrite=overwrite)


def rows_in(out: Path) -> list[dict[str, object]]:
    lines = [line for part in sorted((out / ROWS).glob("part-*")) for line in part.read_text().splitlines()]
    return [json.loads(line) for line in lines]


class FlakyStore(LocalFileSystem):
    """Local files as an object store: each process's first reading of a file fails, and `never.png` is never read. A
    folder `full` takes no part."""

    protocol = "flaky"
    cachable = False
    asked: ClassVar[set[str]] = set()

    def open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> Any:
        name = self._strip_protocol(path)
        if "r" in mode and name.endswith(".png"):
            if name.endswith("never.png") or name not in self.asked:
                self.asked.add(name)
                raise OSError(104, "reset by peer")
        elif "w" in mode and "/full/" in name and "part-" in name:
            raise OSError(28, "No space left on device")
        return super().open(path, mode, block_size, **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return LocalFileSystem._strip_protocol(str(path).removeprefix("flaky://"))


register_implementation("flaky", FlakyStore, clobber=True)


def command(words: Sequence[str]) -> int:
    """`dpmesh bulk` with `touchy_predictor` in place of the model, in a process of its own; the exit status."""
    import ray

    from dpmesh.bulk import ray_run
    from dpmesh.cli.main import main

    if address := os.environ.get("DPMESH_TEST_ADDRESS"):  # else Ray prefers the head
        ray.init = partial(ray.init, _node_ip_address=address)
    ray_run.PATIENCE = float(os.environ["DPMESH_TEST_PATIENCE"])
    actual = ray_run.BulkRun
    ray_run.BulkRun = lambda job, *rest, **more: actual(replace(job, load=touchy_predictor), *rest, **more)  # type: ignore[assignment,misc]
    return main([*words])
