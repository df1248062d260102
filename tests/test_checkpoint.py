"""Weights on disk: what safetensors itself reads back, strict, atomic, never twice in memory."""

import json
import os
from pathlib import Path

import pytest
import safetensors
import safetensors.torch as st
import torch
from torch import nn

from dpmesh import checkpoint
from dpmesh.assets import shipped
from dpmesh.checkpoint import load_weights, read_config, save_weights, uninitialised, write_weights
from dpmesh.config import EMBEDDED
from dpmesh.config_io import to_dict
from dpmesh.errors import OutputError, WeightsError
from dpmesh.model import DPMesh


def layers(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5, bias=False))
    model[0].to(memory_format=torch.channels_last)
    return model


def test_safetensors_reads_what_is_streamed(tmp_path: Path):
    state = {
        "odd": torch.arange(3, dtype=torch.uint8),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "whole": torch.arange(6).view(2, 3),
        "half": torch.rand(3, 5).half(),
        "brain": torch.rand(7).bfloat16(),
        "true": torch.tensor([True, False]),
        "stepped": torch.rand(9)[::2],
        "turned": torch.rand(4, 6, dtype=torch.float64).T,
        "last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    write_weights(tmp_path, state, {}, {})
    loaded = st.load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == state.keys()
    for name, value in state.items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value), name
    with safetensors.safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    with (tmp_path / "model.safetensors").open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    assert length % 8 == 0
    for name, value in state.items():  # each tensor begins at a multiple of its numbers' width
        assert header[name]["data_offsets"][0] % value.itemsize == 0, name


def test_half_halves_only_what_floats(tmp_path: Path):
    write_weights(tmp_path, {"a": torch.rand(4), "b": torch.arange(3)}, {}, {}, half=True)
    loaded = st.load_file(tmp_path / "model.safetensors")
    assert (loaded["a"].dtype, loaded["b"].dtype) == (torch.float16, torch.int64)


@pytest.mark.parametrize("batch", [1, 200, 2**30])
def test_weights_come_back_in_any_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int):
    monkeypatch.setattr(checkpoint, "BATCH", batch)
    one, other = layers(0), layers(1)
    save_weights(one, tmp_path, {}, {})
    load_weights(other, tmp_path)
    for name, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert other[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_misfits_are_named_and_nothing_is_loaded(tmp_path: Path):
    model = layers()
    state = dict(model.state_dict())
    del state["0.bias"]
    state |= {"new": torch.zeros(1), "2.weight": torch.zeros(4, 5)}
    write_weights(tmp_path, {name: torch.ones_like(value) for name, value in state.items()}, {}, {})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    message = r"1 missing: 0\.bias; 1 unexpected: new; 1 mis-shaped: 2\.weight 4×5 instead of 5×4"
    with pytest.raises(WeightsError, match=message):
        load_weights(model, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_a_damaged_file_is_refused(tmp_path: Path, cut: int):
    save_weights(layers(), tmp_path, {}, {})
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read"):
        load_weights(layers(), tmp_path)


def test_a_failed_write_leaves_the_old_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_weights(layers(0), tmp_path, {}, {})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        save_weights(layers(1), tmp_path, {}, {})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_uninitialised_layers_cost_no_random_numbers():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    with uninitialised():
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 5), nn.LayerNorm(5))
        nn.init.normal_(tensor=torch.empty(3))
    assert torch.equal(torch.rand(1), expected)
    torch.manual_seed(0)
    nn.Linear(4, 5)  # outside, layers begin at random again
    assert not torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float):
    state = dict(layers().state_dict())
    state["2.weight"] = state["2.weight"].clone()
    state["2.weight"][1, 2] = value
    write_weights(tmp_path, state, {}, {})
    with pytest.raises(WeightsError, match=r"model\.safetensors: 2\.weight holds NaN or infinity"):
        load_weights(layers(), tmp_path)


def test_a_number_too_large_for_the_models_type_is_refused(tmp_path: Path):
    model = nn.Linear(2, 2)
    write_weights(tmp_path, {n: torch.full_like(v, 1e6) for n, v in model.state_dict().items()}, {}, {})
    load_weights(model, tmp_path)
    with pytest.raises(WeightsError, match="holds NaN or infinity"):
        load_weights(model.half(), tmp_path)


@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.uint8, torch.bool])
def test_weights_of_another_kind_are_refused(tmp_path: Path, kind: torch.dtype):
    """Integers in the place of weights once gave a wrong prediction."""
    state = {**layers().state_dict(), "2.weight": torch.ones(5, 4, dtype=kind)}
    write_weights(tmp_path, state, {}, {})
    before = layers(1)
    with pytest.raises(WeightsError, match=r"2\.weight is stored as [A-Z]+\d*, which is no F32"):
        load_weights(before, tmp_path)
    assert all(
        torch.equal(one, other)
        for one, other in zip(before.parameters(), layers(1).parameters(), strict=True)
    )
    for own in (torch.float16, torch.bfloat16, torch.float64):
        write_weights(tmp_path, {**state, "2.weight": torch.ones(5, 4, dtype=own)}, {}, {})
        load_weights(before, tmp_path)
        assert (before[2].weight == 1).all()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", "{}", '{"config": {}}', '{"config": [], "provenance": {}}',
     '{"config": {}, "provenance": 5}', "[" * 100_000, 
     '{"config": {}, "provenance": {"a": ' + "[" * 99 + "]" * 99 + "}}",
     '{"config": {"a": ' + "9" * 10_000 + '}, "provenance": {}}', "\ud800", "\x00"],
)  # fmt: skip
def test_a_damaged_config_is_one_line(tmp_path: Path, text: str):
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(WeightsError, match=r"no readable config\.json") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_what_is_no_regular_file_is_one_line(tmp_path: Path):
    for name in ("config.json", "model.safetensors"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(WeightsError, match=r"config\.json \(is not a regular file\)"):
        read_config(tmp_path)
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read \(is not a regular file\)"):
        load_weights(layers(), tmp_path)


def test_damage_anywhere_in_the_header_is_one_line(tmp_path: Path):
    save_weights(layers(), tmp_path, {}, {})
    path, generator = tmp_path / "model.safetensors", torch.Generator().manual_seed(0)
    whole = path.read_bytes()
    for _ in range(150):
        blob = bytearray(whole)
        for at in torch.randint(0, 420, (2,), generator=generator).tolist():
            blob[at] = int(torch.randint(0, 256, (), generator=generator))
        path.write_bytes(blob)
        try:
            load_weights(layers(), tmp_path)
        except WeightsError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    "change", [{"width": 65_536, "inner": 65_536}, {"decoder_layers": 100}, {"heads": 3}, {"joints": 14}]
)
def test_a_config_of_other_sizes_than_the_weights_takes_no_memory(tmp_path: Path, change: dict[str, int]):
    """From the shapes alone: the widest of these models has some hundred GB of numbers."""
    plain = to_dict(EMBEDDED)
    plain["regressor"] |= change
    (tmp_path / "config.json").write_text(json.dumps({"config": plain, "provenance": {}}))
    (tmp_path / "model.safetensors").symlink_to(shipped("embedded/model.safetensors"))
    with pytest.raises(WeightsError) as caught:
        DPMesh.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
