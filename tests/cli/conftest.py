"""The real command with a fake model: what the command does around it is under test."""

from pathlib import Path
from typing import Any

import pytest
from fakes import FakeDetector, FakeModel
from result_album import make_album

from dpmesh.inference.options import ModelOptions
from dpmesh.inference.predictor import Predictor


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[ModelOptions]:
    """The real command with the fake model; returns the options of each call."""
    calls: list[ModelOptions] = []

    def from_pretrained(**arguments: Any) -> Predictor:
        options = ModelOptions(**arguments)
        calls.append(options)
        recorded = options.record() if options.weights == "embedded" else None
        detector = FakeDetector([(0.1, 0.1, 0.9, 0.9)])
        return Predictor(FakeModel(), detector, "fake", 4, options=recorded)

    monkeypatch.setattr(Predictor, "from_pretrained", from_pretrained)
    return calls


@pytest.fixture
def album(tmp_path: Path) -> Path:
    return make_album(tmp_path)
