"""People of several requests share a batch; one request's failure or departure is its own."""

import socket
import threading

import numpy as np
import pytest
import torch
from fakes import FakeDetector
from service import Background, HeldModel, ask, fake_predictor, image_form, jpeg, multipart, running, until

from dpmesh.errors import InputError
from dpmesh.inference.options import PredictOptions
from dpmesh.serve.batching import Batcher
from dpmesh.serve.service import Service
from dpmesh.types import Inputs, Prediction

PLAIN = PredictOptions()


def hold(batcher: Batcher, model: HeldModel) -> None:
    """Keep the model's thread busy with one image, so that others gather."""
    model.free.clear()
    batcher.submit(jpeg(seed=99), "first", PLAIN)
    assert model.held.wait(30)


def test_what_is_ready_goes_together() -> None:
    predictor = fake_predictor()
    model = predictor.model
    assert isinstance(model, HeldModel)
    seen: list[tuple[int, int]] = []
    batcher = Batcher(predictor, seen=lambda people, images: seen.append((people, images)))
    hold(batcher, model)
    images = [jpeg(seed=i) for i in range(3)]
    options = [PLAIN, PredictOptions(max_people=1), PredictOptions(fov=40.0)]
    waiting = [
        batcher.submit(data, f"{i}.jpg", o) for i, (data, o) in enumerate(zip(images, options, strict=True))
    ]
    until(lambda: batcher.ready == 3)
    model.free.set()
    scenes = [future.result(30) for future in waiting]
    batcher.close()
    assert model.calls == [2, 5]
    assert seen == [(2, 1), (5, 3)]
    for data, one, scene in zip(images, options, scenes, strict=True):
        alone = predictor(data, max_people=one.max_people, fov=one.fov)
        assert scene.options == alone.options
        assert np.allclose(scene.stacked("vertices"), alone.stacked("vertices"), atol=1e-5)
        assert np.allclose(scene.K, alone.K)
    assert [scene.source for scene in scenes] == ["0.jpg", "1.jpg", "2.jpg"]


def test_a_batch_is_no_larger_than_the_predictors() -> None:
    predictor = fake_predictor([(0.1, 0.1, 0.5, 0.9)])
    model = predictor.model
    assert isinstance(model, HeldModel)
    predictor.batch = 2
    batcher = Batcher(predictor)
    hold(batcher, model)
    waiting = [batcher.submit(jpeg(seed=i), "", PLAIN) for i in range(5)]
    until(lambda: batcher.ready == 5)
    model.free.set()
    for future in waiting:
        future.result(30)
    batcher.close()
    assert model.calls == [1, 2, 2, 1]


def test_a_request_alone_does_not_wait() -> None:
    batcher = Batcher(fake_predictor(), max_wait=20.0)
    future = batcher.submit(jpeg(), "", PLAIN)
    assert len(future.result(15)) == 2
    batcher.close()


def test_it_waits_for_those_that_come() -> None:
    predictor = fake_predictor([(0.1, 0.1, 0.5, 0.9)])
    slow = threading.Event()

    class Late(FakeDetector):
        def __call__(self, image: np.ndarray, max_people: int = 20):
            if len(image) == 64:
                slow.set()
                threading.Event().wait(0.3)
            return super().__call__(image, max_people)

    predictor.detector = Late([(0.1, 0.1, 0.5, 0.9)])
    batcher = Batcher(predictor, max_wait=5.0, helpers=2)
    late = batcher.submit(jpeg(64, 64), "", PLAIN)
    assert slow.wait(5)
    batcher.submit(jpeg(), "", PLAIN)
    late.result(30)
    batcher.close()
    assert isinstance(predictor.model, HeldModel)
    assert predictor.model.calls == [2]


class Picky(HeldModel):
    """Fails for crops that are black."""

    def forward(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        if bool((inputs.crop.flatten(1).amax(1) < 0.01).any()):
            raise RuntimeError("a black crop")
        return super().forward(inputs, features=features)


def test_one_that_fails_fails_alone() -> None:
    predictor = fake_predictor()
    predictor.model = model = Picky()
    batcher = Batcher(predictor)
    hold(batcher, model)
    black = np.zeros((120, 160, 3), np.uint8)
    hidden = {"keypoints": np.zeros((1, 17, 3)), "boxes": np.array([[10, 10, 60, 110]])}
    good = batcher.submit(jpeg(), "", PredictOptions(**hidden))
    bad = batcher.submit(_png(black), "", PLAIN)
    unusable = batcher.submit(b"no image", "", PLAIN)
    until(lambda: batcher.ready == 2)
    model.free.set()
    scene = good.result(30)
    assert scene.fallbacks["no_keypoints"] == 1  # though it was tried twice
    with pytest.raises(RuntimeError):
        bad.result(30)
    with pytest.raises(InputError):
        unusable.result(30)
    assert len(batcher.submit(jpeg(), "", PLAIN).result(30)) == 2
    batcher.close()


def _png(pixels: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".png", pixels)[1].tobytes()


def test_a_client_that_leaves_costs_no_prediction() -> None:
    predictor = fake_predictor()
    model = predictor.model
    assert isinstance(model, HeldModel)
    service = Service(predictor)
    with running(service) as (port, _):
        model.free.clear()
        first = Background(port, image_form())
        assert model.held.wait(30)
        body, kind = multipart(image_form())
        head = f"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port)) as leaving:
            leaving.sendall(head.encode() + body)
            until(lambda: service.batcher.ready == 1)
        until(lambda: service.waiting == 1)
        model.free.set()
        assert first.reply.status == 200
        assert ask(port, "POST", "/v1/predict", image_form()).status == 200
        text = ask(port, "GET", "/metrics").body.decode()
    assert model.calls == [2, 2]
    assert "dpmesh_clients_gone_total 1.0" in text


def test_the_models_thread_survives_anything() -> None:
    predictor = fake_predictor()
    batcher = Batcher(predictor)

    def broken(*_: object) -> torch.Tensor:
        raise MemoryError

    forward, predictor.model.forward = predictor.model.forward, broken  # type: ignore[attr-defined]
    with pytest.raises(MemoryError):
        batcher.submit(jpeg(), "", PLAIN).result(30)
    assert batcher.alive
    predictor.model.forward = forward  # type: ignore[attr-defined]
    batcher.submit(jpeg(), "", PLAIN).result(30)
    batcher.close()
    assert not batcher.alive
