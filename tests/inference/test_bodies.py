"""Weights choose their body: what was trained with SMPL never silently takes the free body's shapes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dpmesh import assets
from dpmesh.body.files import free_body, save_body
from dpmesh.body.resolve import SOURCE, choose_body
from dpmesh.errors import AssetError, InputError, WeightsError


@pytest.fixture(autouse=True)
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own asset folder, empty."""
    monkeypatch.setenv(assets.FOLDER_VARIABLE, str(tmp_path / "assets"))
    return tmp_path / "assets"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    save_body(tmp_path / "mine.npz", free_body())
    return tmp_path / "mine.npz"


def weights(folder: Path, **provenance: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"config": {}, "provenance": provenance}))
    return folder


def test_own_weights_have_the_free_body_even_where_smpl_was_imported(
    imported: Path, mine: Path, tmp_path: Path
) -> None:
    (imported / "smpl").mkdir(parents=True)
    (imported / "smpl" / "SMPL_NEUTRAL.npz").write_bytes(mine.read_bytes())
    for own in ("embedded", weights(tmp_path / "w", commit="abc")):
        chosen = choose_body(own)
        assert chosen.arrays is None and not chosen.record and not chosen.notes
    released = choose_body(weights(tmp_path / "r", source=SOURCE))
    assert released.arrays is not None and released.record["file"] == "SMPL_NEUTRAL.npz"


def test_released_weights_without_a_body_are_refused_with_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"--body SMPL_NEUTRAL\.pkl.*dpmesh assets import"):
        choose_body(weights(tmp_path / "w", source=SOURCE))


def test_a_body_is_compared_with_the_recorded_one(mine: Path, tmp_path: Path) -> None:
    same = {"file": "mine.npz", "sha256": assets.sha256(mine)}
    folder = weights(tmp_path / "w", source=SOURCE, body=same)
    chosen = choose_body(folder, mine)
    assert chosen.arrays is not None and chosen.record["sha256"] == same["sha256"] and chosen.notes == ()

    weights(folder, source=SOURCE, body={"file": "SMPL.pkl", "sha256": "0" * 64})
    assert choose_body(folder, mine).notes == (
        "the body mine.npz is not SMPL.pkl, which the conversion recorded",
    )
    weights(folder, source=SOURCE, body={**same, "differs_from_checkpoint": ["weights differs"]})
    assert choose_body(folder, mine).notes == ("the body is not the checkpoint's: weights differs",)
    weights(folder, source=SOURCE, body={**same, "differs_from_checkpoint": ["f differs", "weights differs"]})
    assert choose_body(folder, mine).notes == ("the body is not the checkpoint's: f differs (and 1 more)",)
    weights(folder, source=SOURCE, body={})
    assert "never compared" in choose_body(folder, mine).notes[0]


def test_another_body_under_shipped_weights_is_noted(mine: Path) -> None:
    chosen = choose_body("embedded", str(mine))
    assert chosen.arrays is not None and "free body" in chosen.notes[0]


def test_what_cannot_be_used_is_refused(mine: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such body"):
        choose_body("embedded", tmp_path / "none.pkl")
    with pytest.raises(InputError, match="Give --body"):
        choose_body("embedded", regressors=tmp_path)
    save_body(tmp_path / "mute.npz", replace(free_body(), regressors={}))
    with pytest.raises(InputError, match="no regressor of the 30 joints"):
        choose_body("embedded", tmp_path / "mute.npz")


def test_a_provenance_that_names_no_body_is_one_line(mine: Path, tmp_path: Path) -> None:
    for wrong in ("mine.npz", [1], 5):
        with pytest.raises(
            WeightsError, match=r"config\.json: its provenance records something other than a body"
        ):
            choose_body(weights(tmp_path / "w", body=wrong), mine)
    for odd in ({"sha256": 5}, {"sha256": assets.sha256(mine), "differs_from_checkpoint": "all"}):
        assert choose_body(weights(tmp_path / "w", body=odd), mine).arrays is not None
