"""The licensed body inside a released checkpoint: compared, never copied unasked."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch as st
import torch
from torch import Tensor

from dpmesh.body.files import BodyArrays, free_body, load_body
from dpmesh.config import DPMeshConfig
from dpmesh.convert.released import convert_released
from dpmesh.convert.released_body import KEPT
from dpmesh.errors import InputError


def with_body(state: dict[str, Tensor], body: BodyArrays) -> dict[str, Tensor]:
    """The checkpoint as trained with this body."""
    arrays = {
        "v_template": body.v_template[None], "shapedirs": body.shapedirs, "posedirs": body.posedirs,
        "J_regressor": body.J_regressor, "weights": body.weights, "faces": body.faces,
    }  # fmt: skip
    return {**state, **{f"module.human_model_layer.th_{n}": torch.from_numpy(a) for n, a in arrays.items()}}


def test_licensed_arrays_stay_where_the_user_put_them(state, small: DPMeshConfig, tmp_path: Path):
    body = free_body()
    torch.save(with_body(state, body), tmp_path / "twin.pth.tar")
    convert_released(tmp_path / "twin.pth.tar", tmp_path / "out", small, body=(body, {"file": "free"}))
    stored = st.load_file(tmp_path / "out" / "model.safetensors")
    vertices = len(body.v_template)
    assert [name for name, value in stored.items() if vertices in value.shape] == []
    content = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert body.v_template[1000:1010].tobytes() not in content
    assert body.J_regressor[5][body.J_regressor[5] > 0][:4].tobytes() not in content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "twin.pth.tar"]
    place = tmp_path / "mine"
    convert_released(tmp_path / "twin.pth.tar", tmp_path / "out", small, smpl_to=place)
    kept = load_body(place / KEPT)
    for item in fields(BodyArrays):
        if item.name != "regressors":  # the face vertices of another mesh are unknown
            np.testing.assert_array_equal(getattr(kept, item.name), getattr(body, item.name))
    assert [p.name for p in place.iterdir()] == [KEPT]


def test_a_body_that_differs_from_the_checkpoints_is_recorded(state, small: DPMeshConfig, tmp_path: Path):
    body = free_body()
    torch.save(with_body(state, body), tmp_path / "twin.pth.tar")
    taller = replace(body, v_template=body.v_template + np.float32([0, 0.01, 0]))
    for one, differences in ((body, []), (taller, ["v_template differs by up to 10 mm"])):
        convert_released(tmp_path / "twin.pth.tar", tmp_path / "out", small, body=(one, {"file": "x"}))
        record = json.loads((tmp_path / "out" / "config.json").read_text())["provenance"]["body"]
        assert record == {"file": "x", "differs_from_checkpoint": differences}


def test_a_checkpoint_with_a_broken_body_keeps_none(saved: Path, small: DPMeshConfig, tmp_path: Path):
    """The twin's own arrays are random numbers: rows that do not sum to 1."""
    with pytest.raises(InputError, match=r"twin\.pth\.tar: its SMPL arrays are no body: .*do not sum to 1"):
        convert_released(saved, tmp_path / "out", small, smpl_to=tmp_path / "mine")
    assert not (tmp_path / "out").exists() and not (tmp_path / "mine").exists()
