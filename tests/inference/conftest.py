"""A predictor with the fake model and detector, and the body of octahedra."""

from collections.abc import Callable

import pytest
from fakes import FakeDetector, FakeModel, stick_body

from dpmesh.body.layer import BodyModel
from dpmesh.inference.predictor import Predictor


@pytest.fixture
def predictor() -> Callable[..., Predictor]:
    """predictor(boxes, batch) -> Predictor with the fake model and detector."""

    def build(boxes: list[tuple[float, float, float, float]] | None = None, batch: int = 8) -> Predictor:
        result = [(0.1, 0.1, 0.4, 0.9), (0.55, 0.2, 0.95, 1.0)] if boxes is None else boxes
        return Predictor(FakeModel(), FakeDetector(result), "fake", batch)  # pyright: ignore[reportArgumentType]

    return build


@pytest.fixture
def body() -> BodyModel:
    return BodyModel(stick_body())
