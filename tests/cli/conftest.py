"""The real command with a fake model: what the command does around it is under test."""

import pytest
from fakes import FakeDetector, FakeModel

from dpmesh.inference.options import model_options
from dpmesh.inference.predictor import Predictor


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """The real command with the fake model; returns how it was asked for."""
    calls: list[tuple[object, ...]] = []

    def from_pretrained(*asked: object) -> Predictor:
        calls.append(asked)
        weights, _, _, fast, body, regressors, *rest = asked
        refine, turn, flip = rest or (False, True, False)
        files = (weights, body, regressors)
        options = model_options(*files, fast, refine, turn, flip) if weights == "embedded" else None  # pyright: ignore[reportArgumentType]
        detector = FakeDetector([(0.1, 0.1, 0.9, 0.9)])
        return Predictor(FakeModel(), detector, "fake", 4, options=options)

    monkeypatch.setattr(Predictor, "from_pretrained", from_pretrained)
    return calls
