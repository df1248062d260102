"""The real command with a fake model: what the command does around it is under test."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from dpmesh.inference.options import model_options
from dpmesh.inference.predictor import Predictor

FAKES = Path(__file__).parents[1] / "inference" / "conftest.py"


def load_fakes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pipeline_fakes", FAKES)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """The real command with the fake model; returns how it was asked for."""
    fakes, calls = load_fakes(), []

    def from_pretrained(*asked: object) -> Predictor:
        calls.append(asked)
        weights, _, _, fast, body, regressors, *rest = asked
        refine, turn, flip = rest or (False, True, False)
        files = (weights, body, regressors)
        options = model_options(*files, fast, refine, turn, flip) if weights == "embedded" else None  # pyright: ignore[reportArgumentType]
        detector = fakes.FakeDetector([(0.1, 0.1, 0.9, 0.9)])
        return Predictor(fakes.FakeModel(), detector, "fake", 4, options=options)

    monkeypatch.setattr(Predictor, "from_pretrained", from_pretrained)
    return calls
