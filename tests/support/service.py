"""A service with a light model on a real socket, and a client that can misbehave."""

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import uvicorn
from fakes import FakeDetector, FakeModel

from dpmesh.inference.predictor import Predictor
from dpmesh.serve.app import create_app
from dpmesh.serve.server import DrainingServer, listen
from dpmesh.serve.service import Service
from dpmesh.types import Inputs, Prediction

ONE, TWO = [(0.1, 0.1, 0.5, 0.9)], [(0.1, 0.1, 0.5, 0.9), (0.5, 0.2, 0.9, 0.95)]
Form = Sequence[tuple[str, "str | tuple[str, bytes]"]]
"""Name and value of each part; a file is (its name, its content)."""


class HeldModel(FakeModel):
    """Predicts while `free` is set; `held` is set while it waits for that."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.held = threading.Event(), threading.Event()
        self.free.set()

    def forward(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        if not self.free.is_set():
            self.held.set()
            assert self.free.wait(30)
        return super().forward(inputs, features=features)


def fake_predictor(boxes: list[tuple[float, float, float, float]] = TWO) -> Predictor:
    return Predictor(HeldModel(), FakeDetector(boxes), name="fake")


@contextmanager
def running(service: Service) -> Iterator[tuple[int, DrainingServer]]:
    """The port, and the server."""
    bound = listen("127.0.0.1", 0)
    config = uvicorn.Config(create_app(service), log_config=None, access_log=False, ws="none", lifespan="on")
    server = DrainingServer(config, service)
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        until(lambda: server.started)
        yield bound.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def until(condition: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def jpeg(height: int = 120, width: int = 160, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def multipart(parts: Form, boundary: str = "b0undary") -> tuple[bytes, str]:
    """Body and Content-Type."""
    body = b""
    for name, value in parts:
        disposition = f'Content-Disposition: form-data; name="{name}"'
        content = value.encode() if isinstance(value, str) else value[1]
        if not isinstance(value, str):
            disposition += f'; filename="{value[0]}"\r\nContent-Type: application/octet-stream'
        body += f"--{boundary}\r\n{disposition}\r\n\r\n".encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def ask(
    port: int,
    method: str,
    path: str,
    parts: Form | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Reply:
    sent = dict(headers or {})
    if parts is not None:
        body, kind = multipart(parts)
        sent.setdefault("Content-Type", kind)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def image_form(data: bytes | None = None, **fields: str) -> list[tuple[str, "str | tuple[str, bytes]"]]:
    return [("image", ("a.jpg", jpeg() if data is None else data)), *fields.items()]


class Background:
    """A request in a thread of its own; `reply` waits for its answer."""

    def __init__(self, port: int, parts: Form, path: str = "/v1/predict") -> None:
        self._replies: list[Reply] = []
        self._thread = threading.Thread(
            target=lambda: self._replies.append(ask(port, "POST", path, parts)), daemon=True
        )
        self._thread.start()

    @property
    def reply(self) -> Reply:
        self._thread.join(30)
        assert self._replies, "no answer"
        return self._replies[0]
