"""Options: one definition for Python, the command line and the records of results."""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpmesh.cli.arguments import model_options, predict_options, split_settings
from dpmesh.cli.main import parser_of
from dpmesh.errors import ConfigError, InputError, WeightsError
from dpmesh.inference.attention import Attention
from dpmesh.inference.option_docs import option_docs
from dpmesh.inference.options import ModelOptions, PredictKeywords, PredictOptions, differences
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.scene import Scene

FUNCTIONS = [
    (Predictor.from_pretrained, ModelOptions),
    (Predictor.__call__, PredictOptions),
]


@pytest.mark.parametrize(("function", "kind"), FUNCTIONS)
def test_keyword_arguments_are_the_options(function: Any, kind: type) -> None:
    """Names, order and defaults; the docstring has a few words on each, that of the options class all of them."""
    parameters = inspect.signature(function).parameters.values()
    keywords = [(p.name, p.default) for p in parameters if p.default is not p.empty]
    assert keywords == [(field.name, field.default) for field in fields(kind)]
    in_full = " ".join((kind.__doc__ or "").split())
    for name, text in option_docs(kind).items():
        assert name in function.__doc__
        assert len(text) > 10 and f":param {name}: {' '.join(text.split())}" in in_full


def test_predict_many_takes_the_options_of_a_call(predictor: Callable[..., Predictor]) -> None:
    assert list(PredictKeywords.__annotations__) == [field.name for field in fields(PredictOptions)]
    with pytest.raises(TypeError, match="focla"):
        predictor().predict_many([], focla=3)  # pyright: ignore[reportCallIssue]


def test_every_option_has_a_docstring() -> None:
    for kind in (ModelOptions, PredictOptions):
        assert list(option_docs(kind)) == [field.name for field in fields(kind)]


def test_the_command_line_has_the_same_defaults_and_texts() -> None:
    parser = parser_of("predict")
    args = parser.parse_args(["a.jpg", "--out", "o"])
    assert model_options(args) == ModelOptions() and predict_options(args) == PredictOptions()
    shown = " ".join(parser.format_help().split())
    for kind in (ModelOptions, PredictOptions):
        for field in fields(kind):
            text = " ".join(option_docs(kind)[field.name].split("\n\n")[0].split())
            assert text[1:20] in shown and field.default is not MISSING


@pytest.mark.parametrize("save", [Scene.save, Attention.save])
def test_nothing_is_overwritten_by_default(save: Any) -> None:
    assert inspect.signature(save).parameters["overwrite"].default is False
    assert parser_of("predict").parse_args(["a.jpg", "--out", "o"]).overwrite is False


def test_flags_become_options() -> None:
    words = ["a.jpg", "--out", "o", "--no-rotated-detection", "--fast", "--fov", "60", "--max-people", "3"]
    args = parser_of("predict").parse_args(words)
    assert model_options(args, weights="w") == ModelOptions(weights="w", fast=True, rotated_detection=False)
    assert predict_options(args) == PredictOptions(fov=60.0, max_people=3)


def test_options_refuse_nonsense_and_changes() -> None:
    with pytest.raises(ConfigError, match="threads=0"):
        ModelOptions(threads=0)
    with pytest.raises(ConfigError, match="joint order of keypoints, and there are none"):
        PredictOptions(format="coco")
    with pytest.raises(FrozenInstanceError):
        PredictOptions().focal = 3.0  # pyright: ignore[reportAttributeAccessIssue]


def test_records_know_files_by_content(tmp_path: Path) -> None:
    """The keys are those of stored results, so they stay."""
    file = tmp_path / "k.json"
    file.write_text("[]")
    digest = hashlib.sha256(b"[]").hexdigest()
    record = PredictOptions(keypoints=file, boxes="1,2,3,4", focal=500.0).record()
    assert record == {
        "keypoints": {"file": "k.json", "sha256": digest}, "keypoint_format": None, "boxes": "1,2,3,4",
        "focal": 500.0, "fov": None, "roll": None, "max_people": 20, "keep_unposed": False, "hypotheses": 1,
    }  # fmt: skip
    assert PredictOptions(keypoints=np.zeros((1, 17, 3))).record()["keypoints"] != record["keypoints"]
    with pytest.raises(InputError, match="no such file"):
        PredictOptions(keypoints=tmp_path / "none.json").record()
    model = ModelOptions(rotated_detection=False).record()
    names = ["weights", "body", "fast", "refine", "turn", "flip", "pose_model", "person_model"]
    assert list(model) == names and model["turn"] is False
    with pytest.raises(WeightsError, match="no weights of that name"):
        ModelOptions(weights=tmp_path).record()


def test_differences_are_named_by_flags() -> None:
    old, new = (
        ModelOptions(refine=False).record(),
        ModelOptions(rotated_detection=False, refine=False, flip=True).record(),
    )
    assert differences(old, old) == []
    wanted = ["--no-rotated-detection was off, is on", "--flip was off, is on"]
    assert differences(old, new) == wanted
    refined = ModelOptions().record()
    assert differences(old, refined) == ["--no-refine was on, is off"]
    assert differences(refined, ModelOptions(flip=True).record()) == []  # it starts from both passes anyway
    quick, mirrored = (ModelOptions(fast=True, flip=flip).record() for flip in (False, True))
    assert differences(quick, mirrored) == ["--flip was off, is on"]


def test_settings_are_split_from_the_other_words() -> None:
    words = ["a", "--set.model.x", "3", "--seed", "1", "--set.model.y=[1, 2]", "b", "--set.model.z"]
    assert split_settings(words) == (
        ["a", "--seed", "1", "b"],
        [("model.x", "3"), ("model.y", "[1, 2]"), ("model.z", "")],
    )
