"""What one service shares between its requests: the batcher, the jobs, the places of the queue, the counts."""

import asyncio
import math
import time
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from starlette.requests import Request

from dpmesh.inference.predictor import Predictor
from dpmesh.serve.batching import MAX_WAIT, Batcher
from dpmesh.serve.jobs import Jobs, VideoCommand
from dpmesh.serve.limits import UPLOADS, Limits, Refused
from dpmesh.serve.metrics import Metrics

Result = TypeVar("Result")
STUCK = 10
"""Times the limit `timeout`: a batch that takes longer never ends."""
_LONGEST_RETRY = 60
_FORGET = 0.9
"""Weight of the past in the mean time between answers."""


class ClientGone(Exception):
    """The client closed its connection before the answer."""


class Service:
    """Used by the event loop's thread alone, but for the batcher and the jobs.

    token: that clients must send; empty for none. videos: how a video is predicted; None without videos.
    """

    def __init__(
        self,
        predictor: Predictor,
        limits: Limits | None = None,
        token: str = "",
        videos: VideoCommand | None = None,
        max_wait: float = MAX_WAIT,
    ) -> None:
        self.predictor, self.token = predictor, token
        self.limits = Limits() if limits is None else limits
        self.jobs = Jobs(self.limits, videos)
        self.metrics = Metrics(lambda: self.waiting, lambda: self.jobs.unfinished)
        self.batcher = Batcher(predictor, max_wait, seen=self.metrics.batch_done)
        self.waiting = self.uploading = self.in_flight = 0
        self.draining = False
        """After SIGTERM: what was accepted is answered, anything new refused."""
        self._pace, self._answered = 0.5, 0.0
        """Mean seconds between two answers while there is work; when the last was given."""

    @property
    def idle(self) -> bool:
        """Whether nothing accepted is left to do."""
        return not self.in_flight and not self.jobs.owed

    @property
    def healthy(self) -> bool:
        """Whether the model's thread lives, and is not stuck."""
        return self.batcher.alive and self.batcher.busy < STUCK * self.limits.timeout

    def refuse_if_full(self) -> None:
        """Raise Refused (429) where no place is free, or as many clients send as could ever get one."""
        if self.waiting >= self.limits.queue or self.uploading >= UPLOADS * self.limits.queue:
            seconds = math.ceil(self._pace * self.limits.queue)
            raise Refused(429, "All places are taken; try again later", min(max(1, seconds), _LONGEST_RETRY))

    @contextmanager
    def place(self) -> Generator[None]:
        """Hold a place of the queue. Raises Refused (429)."""
        self.refuse_if_full()
        self.waiting += 1
        began = time.monotonic()
        try:
            yield
        finally:
            self.waiting -= 1
            now = time.monotonic()
            self._pace = _FORGET * self._pace + (1 - _FORGET) * (now - max(began, self._answered))
            self._answered = now

    async def result(self, request: Request, future: Future[Result], end: float) -> Result:
        """The future's result. It is cancelled when the client goes (ClientGone), and at `end` (Refused, 503).

        end: of time.monotonic.
        """
        answer = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(_gone(request))
        try:
            left = max(0.0, end - time.monotonic())
            done, _ = await asyncio.wait({answer, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if answer in done:
                return answer.result()
            if gone in done:
                self.metrics.gone.inc()
                raise ClientGone
            raise Refused(503, f"It was not done within {self.limits.timeout:g} seconds; try again later", 10)
        finally:
            gone.cancel()
            answer.cancel()

    def close(self) -> None:
        """Stop the threads; finish images that were accepted, end videos and remove their files."""
        self.jobs.close()
        self.batcher.close()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
