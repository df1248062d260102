"""Images of many requests, predicted together: one thread has the model, and people share its batches.

Decoding and detection run in a few helper threads, beside the model. The model takes at once what is ready, up to a
full batch; where other requests are on their way it waits for them, a few milliseconds.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dpmesh.inference.options import PredictOptions
from dpmesh.inference.predictor import Predictor, finished, predict_prepared
from dpmesh.inference.prepared import FramePredictor
from dpmesh.inference.preprocess import PreparedImage, prepare_image
from dpmesh.inference.scene import Scene

log = logging.getLogger("dpmesh.serve")

MAX_WAIT = 0.010
"""Seconds that a batch waits for people of other requests."""
_LONGEST_CLOSE = 30.0
Result = TypeVar("Result")


@dataclass(eq=False)
class Work:
    """An image on its way. data: its file. name: as the scene records it."""

    data: bytes
    name: str
    options: PredictOptions
    scene: Future[Scene] = field(default_factory=Future)
    prepared: PreparedImage | None = None


class Batcher:
    """Predicts images that any thread submits. helpers: threads. seen: called with the people of each batch.

    A request that is cancelled before its batch begins costs no prediction.
    """

    def __init__(
        self,
        predictor: Predictor,
        max_wait: float = MAX_WAIT,
        helpers: int | None = None,
        seen: Callable[[int, int], None] = lambda people, images: None,
    ) -> None:
        self._predictor, self._max_wait, self._seen = predictor, max_wait, seen
        self._model = FramePredictor(predictor, single=False)
        self._ready: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._coming = 0
        """Images that are being prepared, or wait for that."""
        self._began: float | None = None
        self._lock = threading.Lock()
        count = helpers or min(8, max(1, os.cpu_count() or 1))
        self._helpers = ThreadPoolExecutor(count, thread_name_prefix="helper")
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def busy(self) -> float:
        """Seconds since the batch in the model began; 0 between batches."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    @property
    def ready(self) -> int:
        """Images that wait for the model."""
        return self._ready.qsize()

    def submit(self, data: bytes, name: str, options: PredictOptions) -> Future[Scene]:
        """The scene, or the DPMeshError of an image that cannot be used."""
        work = Work(data, name, options)
        with self._lock:
            self._coming += 1
        self._helpers.submit(self._prepare, work)
        return work.scene

    def help(self, function: Callable[[], Result]) -> Future[Result]:
        """Run a function in a helper thread."""
        return self._helpers.submit(function)

    def close(self) -> None:
        """Finish what was submitted, then stop; a model that hangs is left behind."""
        self._helpers.shutdown()
        self._ready.put(None)
        self._thread.join(_LONGEST_CLOSE)

    def _prepare(self, work: Work) -> None:
        try:
            if not work.scene.cancelled():
                prepared = prepare_image(self._predictor.detector, work.data, work.options)
                work.prepared, work.data = replace(prepared, source=work.name), b""
        except Exception as error:  # noqa: BLE001  any failure is this request's alone
            _fail(work, error)
        finally:
            if work.prepared is not None:
                self._ready.put(work)
            with self._lock:
                self._coming -= 1

    def _run(self) -> None:
        open_ = True
        while open_:
            batch, open_ = self._next_batch()
            started = [work for work in batch if work.scene.set_running_or_notify_cancel()]
            if started:
                self._began = time.monotonic()
                self._predict(started)
                self._began = None

    def _next_batch(self) -> tuple[list[Work], bool]:
        """The works of a batch, and whether there will be more."""
        batch, people = list[Work](), 0
        end = 0.0
        while people < self._predictor.batch:
            try:
                if not batch:
                    work = self._ready.get()
                    end = time.monotonic() + self._max_wait
                elif self._coming:
                    work = self._ready.get(timeout=max(0.0, end - time.monotonic()))
                else:
                    work = self._ready.get_nowait()
            except queue.Empty:
                break
            if work is None:
                return batch, False
            assert work.prepared is not None
            batch.append(work)
            people += max(1, len(work.prepared.people))
        return batch, True

    def _predict(self, works: list[Work]) -> None:
        images = [work.prepared for work in works if work.prepared is not None]
        try:
            # Copies: a prediction counts its fallbacks there, and may be tried again.
            scenes = self._model.scenes([replace(one, fallbacks=one.fallbacks.copy()) for one in images], {})
            self._seen(sum(len(scene) for scene in scenes), len(scenes))
        except Exception as error:  # noqa: BLE001  one of them may be the cause
            if len(works) == 1:
                _fail(works[0], error)
                return
            log.warning("a batch of %d images failed (%s); each is tried alone", len(works), error)
            for work, image in zip(works, images, strict=True):
                self._finish(work, lambda image=image: predict_prepared(self._predictor, image))
            return
        for work, scene in zip(works, scenes, strict=True):
            self._finish(work, lambda scene=scene: scene)

    def _finish(self, work: Work, predicted: Callable[[], Scene]) -> None:
        try:
            scene = predicted()
            recorded = {**scene.options, **work.options.record()}
            work.scene.set_result(finished(self._predictor, replace(scene, options=recorded), work.options))
        except Exception as error:  # noqa: BLE001  any failure is this request's alone
            _fail(work, error)


def _fail(work: Work, error: Exception) -> None:
    with suppress(InvalidStateError):  # cancelled
        work.scene.set_exception(error)
