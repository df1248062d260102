"""Videos: accepted at once, predicted one after the other in a process of their own, fetched later, then removed.

The process may crash, hang or fill the memory: the job then fails, the service stays. Its command writes JSON lines to
stdout: {"frames": done, "total": or null}, and at the end {"error": sentence} or {"done": true}. When the service dies,
its standard input ends, and so must it.
"""

import asyncio
import json
import logging
import os
import secrets
import shutil
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dpmesh.serve.limits import TOKEN, Limits, Refused, one_sentence
from dpmesh.serve.temporary import TemporaryRoot

log = logging.getLogger("dpmesh.serve")

VideoCommand = Callable[[Path, Path, dict[str, Any]], list[str]]
"""(video, folder for the results, options) -> the words of the command that predicts it."""
State = Literal["queued", "running", "done", "failed", "cancelled"]
_OWED = 10.0
"""Seconds that a service which shuts down waits for a client to fetch finished results."""
_LONGEST_LINE = 2**20


@dataclass(eq=False)
class Job:
    """One video. folder: of its file and results, removed with it. frames, total: done, and in all."""

    folder: Path
    name: str
    options: dict[str, Any]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: State = "queued"
    frames: int = 0
    total: int | None = None
    error: str = ""
    results: dict[str, Path] = field(default_factory=dict)
    ended: float = 0.0
    fetched: bool = False
    process: Process | None = None

    @property
    def video(self) -> Path:
        return self.folder / "video"

    def as_json(self) -> dict[str, Any]:
        """What GET /v1/jobs/ID answers."""
        links = {name: f"/v1/jobs/{self.id}/{name}" for name in self.results}
        return {
            "id": self.id,
            "state": self.state,
            "source": self.name,
            "frames": self.frames,
            "total": self.total,
            **({"error": self.error} if self.error else {}),
            **({"results": links} if links else {}),
        }


class Jobs:
    """Of one service; used by the event loop's thread. command: None where videos are not taken."""

    def __init__(self, limits: Limits, command: VideoCommand | None) -> None:
        self._limits, self._command = limits, command
        self._jobs: dict[str, Job] = {}
        self._waiting: list[Job] = []
        self._runner: asyncio.Task[None] | None = None
        self._root = TemporaryRoot() if command is not None else None
        self.uploading = 0

    @property
    def unfinished(self) -> int:
        """Jobs that wait or run."""
        return sum(job.state in ("queued", "running") for job in self._jobs.values())

    @property
    def owed(self) -> bool:
        """Whether a client has yet to get what was accepted."""
        now = time.monotonic()
        return any(
            job.state in ("queued", "running") or (not job.fetched and now - job.ended < _OWED)
            for job in self._jobs.values()
        )

    def refuse_if_full(self) -> None:
        """Raises Refused: 501 where videos are not taken, 429 where as many wait as may."""
        if self._command is None:
            raise Refused(501, "This server takes no videos")
        if len(self._waiting) + self.uploading >= self._limits.video_queue:
            raise Refused(429, "As many videos wait as may; try again later", 30)

    def new(self, name: str, options: dict[str, Any]) -> Job:
        """A job with an empty folder, for its video; `start` queues it."""
        assert self._root is not None
        return Job(self._root.folder(), name, options)

    def start(self, job: Job) -> None:
        self._jobs[job.id] = job
        self._waiting.append(job)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())

    def get(self, name: str) -> Job:
        """Raises Refused (404)."""
        if name not in self._jobs:
            raise Refused(404, "There is no such job: it was removed, or never was")
        return self._jobs[name]

    def remove(self, job: Job) -> None:
        """End it if it has not ended, and remove its files."""
        self._jobs.pop(job.id, None)
        if job in self._waiting:
            self._waiting.remove(job)
        if job.state in ("queued", "running"):
            job.state = "cancelled"
        _kill(job)
        if job.process is None:  # else when the process has ended
            shutil.rmtree(job.folder, ignore_errors=True)

    def close(self) -> None:
        """End and remove all."""
        for job in list(self._jobs.values()):
            self.remove(job)
        if self._root is not None:
            self._root.close()

    async def _run(self) -> None:
        while self._waiting:
            job = self._waiting.pop(0)
            job.state = "running"
            try:
                await asyncio.wait_for(self._predict(job), self._limits.video_timeout)
            except TimeoutError:
                job.error = f"It was not done within {self._limits.video_timeout:g} seconds."
            except Exception:  # the service's fault: the job's alone
                log.exception("job %s failed", job.id)
                job.error = f"The service failed; its log has the reason under {job.id}."
            finally:
                await self._end(job)

    async def _predict(self, job: Job) -> None:
        assert self._command is not None
        out = job.folder / "results"
        out.mkdir()
        words = self._command(job.video, out, {**job.options, "name": job.name})
        job.process = process = await asyncio.create_subprocess_exec(
            *words, stdin=PIPE, stdout=PIPE, cwd=job.folder, limit=_LONGEST_LINE, env=_environment(job)
        )
        assert process.stdout is not None
        done = False
        async for line in process.stdout:
            message = _message(line)
            job.frames, job.total = message.get("frames", job.frames), message.get("total", job.total)
            job.error, done = message.get("error", job.error), done or bool(message.get("done"))
        status = await process.wait()
        if not done and not job.error:
            job.error = one_sentence(f"The process that predicted the video ended early (status {status})")
        if done:
            job.results = {path.name: path for path in sorted(out.iterdir()) if path.is_file()}

    async def _end(self, job: Job) -> None:
        if job.process is not None and job.process.returncode is None:
            _kill(job)
            await job.process.wait()
        job.process = None
        if job.state == "cancelled":
            await asyncio.to_thread(shutil.rmtree, job.folder, True)
            return
        job.state, job.ended = ("failed" if job.error else "done"), time.monotonic()
        log.info("job %s %s: %d frames%s", job.id, job.state, job.frames, job.error and f", {job.error}")
        job.video.unlink(missing_ok=True)
        if job.error:
            await asyncio.to_thread(shutil.rmtree, job.folder, True)
        asyncio.get_running_loop().call_later(self._limits.keep_results, self.remove, job)


def _message(line: bytes) -> dict[str, Any]:
    """Empty for a line that is none: libraries print, too."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _environment(job: Job) -> dict[str, str]:
    """Without the token. The process's own temporary files lie in the job's folder, and go with it."""
    kept = {name: value for name, value in os.environ.items() if name != TOKEN}
    return {**kept, "TMPDIR": str(job.folder)}


def _kill(job: Job) -> None:
    if job.process is not None:
        with suppress(ProcessLookupError):
            job.process.kill()
