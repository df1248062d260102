"""uvicorn around the application: logs with request ids, and a shutdown that answers what was accepted."""

import logging
import os
import socket
import sys
import time
from types import FrameType

import uvicorn

from dpmesh.errors import InputError
from dpmesh.serve.access import WithRequestId
from dpmesh.serve.app import create_app
from dpmesh.serve.service import Service

log = logging.getLogger("dpmesh.serve")

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than any Retry-After, so that who waits can use it again."""
CONNECTIONS = 1000
_SETTLED = 5
"""Ticks of a tenth of a second without work before the listening socket closes."""


class DrainingServer(uvicorn.Server):
    """SIGTERM or Ctrl-C: new requests get 503, accepted ones their answer, then it ends. A second one ends it now."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._end, self._settled = 0.0, 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining:
            self.should_exit = self.force_exit = True
        self._service.draining = True
        self._end = time.monotonic() + self._service.limits.grace

    async def on_tick(self, counter: int) -> bool:
        if self._service.draining and not self.should_exit:
            self._settled = self._settled + 1 if self._service.idle else 0
            self.should_exit = self._settled >= _SETTLED or time.monotonic() > self._end
        return await super().on_tick(counter)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises InputError."""
    if not host or not 0 <= port <= 65535:
        raise InputError("is no address to listen on", where=f"{host}:{port}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        code = error.errno or 0  # not positive where the name of the host is not found
        reason = os.strerror(code) if code > 0 else str(error.strerror)
        raise InputError(
            f"cannot listen there ({reason})", where=f"{host}:{port}", fix="Choose another --port."
        ) from None


def run(service: Service, bound: socket.socket) -> None:
    """Serve until a signal; returns when what was accepted is answered."""
    config = uvicorn.Config(
        create_app(service),
        log_config=None,
        access_log=False,
        server_header=False,
        http="h11",  # it goes on reading a body that was refused, so that the client gets the refusal
        ws="none",
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=5,
        limit_concurrency=CONNECTIONS,
    )
    DrainingServer(config, service).run([bound])


def log_to_stderr(verbose: bool = False) -> None:
    """A line for each request, with its id."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s [%(request)s] %(message)s"))
    handler.addFilter(WithRequestId())
    levels = {
        "dpmesh.serve": logging.DEBUG if verbose else logging.INFO,
        "uvicorn": logging.WARNING,
        "python_multipart": logging.ERROR,  # a client's faults are answered, not logged
    }
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
