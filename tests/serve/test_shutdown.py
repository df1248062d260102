"""SIGTERM: what was accepted is answered, anything new refused with 503; then the process ends with status 0."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from service import Background, HeldModel, Reply, ask, fake_predictor, image_form, jpeg, running, until

from dpmesh.serve.limits import Limits
from dpmesh.serve.service import Service

PREDICT = "/v1/predict"


def test_accepted_requests_are_answered_and_new_ones_refused() -> None:
    predictor = fake_predictor()
    model = predictor.model
    assert isinstance(model, HeldModel)
    service = Service(predictor)
    model.free.clear()
    with running(service) as (port, server):
        accepted = [Background(port, image_form(jpeg(seed=i))) for i in range(4)]
        until(lambda: service.waiting == 4)
        server.handle_exit(signal.SIGTERM, None)
        refused = ask(port, "POST", PREDICT, image_form())
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert ask(port, "GET", "/readyz").status == 503
        assert ask(port, "GET", "/healthz").status == 200
        model.free.set()
        assert [one.reply.status for one in accepted] == [200] * 4
        until(lambda: server.should_exit)
        assert not server.force_exit
    with pytest.raises(ConnectionError):
        ask(port, "GET", "/readyz")


def test_the_grace_ends() -> None:
    predictor = fake_predictor()
    model = predictor.model
    assert isinstance(model, HeldModel)
    model.free.clear()
    service = Service(predictor, Limits(grace=0.3))
    with running(service) as (port, server):
        Background(port, image_form())
        until(lambda: service.waiting == 1)
        began = time.monotonic()
        server.handle_exit(signal.SIGTERM, None)
        until(lambda: server.should_exit)
        assert time.monotonic() - began > 0.2
        model.free.set()


class Flood:
    """Clients that ask again and again, until the server is gone. Counts what they got."""

    def __init__(self, port: int, data: bytes, clients: int) -> None:
        self.port, self.data = port, data
        self.replies: list[Reply] = []
        self.lost: list[tuple[float, Exception]] = []
        self._end = False
        self.threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def _ask(self) -> None:
        while not self._end:
            try:
                self.replies.append(ask(self.port, "POST", PREDICT, image_form(self.data)))
            except ConnectionRefusedError:
                return
            except Exception as error:  # noqa: BLE001  whatever a client can meet
                self.lost.append((time.monotonic(), error))
            time.sleep(0.02)

    def join(self) -> None:
        self._end = True
        for thread in self.threads:
            thread.join(60)


@pytest.mark.slow
def test_sigterm_under_load(tmp_path: Path) -> None:
    """The real process with the real model, eight clients."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "dpmesh", "serve", "--port", "0"]
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[0].rsplit(":", 1)[1])
        data = Path("examples/park.jpg").read_bytes()
        single = ask(port, "POST", PREDICT, image_form(data))
        assert len(single.json["people"]) == 2
        flood = Flood(port, data, 8)
        until(lambda: sum(reply.status == 200 for reply in flood.replies) >= 8, 60)
        process.send_signal(signal.SIGTERM)
        until(lambda: any(reply.status == 503 for reply in flood.replies), 30)
        assert process.wait(60) == 0
        flood.join()
    finally:
        process.kill()
    statuses = [reply.status for reply in flood.replies]
    assert set(statuses) <= {200, 429, 503}
    whole = [reply.json["people"] for reply in flood.replies if reply.status == 200]
    for people in whole:  # those of a batch differ by rounding
        for one, other in zip(people, single.json["people"], strict=True):
            assert np.allclose(one["joints3d"], other["joints3d"], atol=1e-4)
    assert all(reply.json["error"] for reply in flood.replies if reply.status != 200)
    log.seek(0)
    text = log.read()
    answered = sum(f"POST {PREDICT} 200" in line for line in text.splitlines())
    # Every request that the server accepted reached its client whole.
    assert answered == statuses.count(200) + 1
    assert " 499 " not in text and "Traceback" not in text
    # A client may meet the closing socket; its request was not accepted.
    assert all(isinstance(error, ConnectionError) for _, error in flood.lost), flood.lost
    assert len(flood.lost) <= 8
