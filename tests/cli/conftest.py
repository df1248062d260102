"""The real command with a fake model: what the command does around it is under test."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpmesh.inference.options import ModelOptions
from dpmesh.inference.predictor import Predictor

FAKES = Path(__file__).parents[1] / "inference" / "conftest.py"


def load_fakes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("inference_fakes", FAKES)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[ModelOptions]:
    """The real command with the fake model; returns the options of each call."""
    fakes, calls = load_fakes(), []

    def from_pretrained(**arguments: Any) -> Predictor:
        options = ModelOptions(**arguments)
        calls.append(options)
        recorded = options.record() if options.weights == "embedded" else None
        detector = fakes.FakeDetector([(0.1, 0.1, 0.9, 0.9)])
        return Predictor(fakes.FakeModel(), detector, "fake", 4, options=recorded)

    monkeypatch.setattr(Predictor, "from_pretrained", from_pretrained)
    return calls
