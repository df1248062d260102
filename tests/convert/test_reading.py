"""Checkpoints as training frameworks write them: the tensors are read, what lies beside them is not used."""

import argparse
import os
import pickle
import sys
import types
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpmesh import tensor_files as reading
from dpmesh.errors import WeightsError
from dpmesh.tensor_files import read_tensors, refuse_numbers

MODULES = ("pytorch_lightning", "pytorch_lightning.callbacks", "pytorch_lightning.callbacks.model_checkpoint")


@pytest.fixture
def lightning() -> Iterator[type]:
    """ModelCheckpoint under its framework's name, while a file is written; reading must do without it."""
    cls = type("ModelCheckpoint", (), {"__module__": MODULES[-1]})
    for name in (*MODULES, "omegaconf", "omegaconf.dictconfig"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules[MODULES[-1]].ModelCheckpoint = cls  # pyright: ignore[reportAttributeAccessIssue]
    yield cls
    forget()


def forget() -> None:
    for name in (*MODULES, "omegaconf", "omegaconf.dictconfig"):
        sys.modules.pop(name, None)


def checkpoint(cls: type) -> dict[str, Any]:
    """As Stable Diffusion's official .ckpt, with settings and figures beside it."""
    settings = type("DictConfig", (), {"__module__": "omegaconf.dictconfig"})
    sys.modules["omegaconf.dictconfig"].DictConfig = settings  # pyright: ignore[reportAttributeAccessIssue]
    config, instance = settings(), cls()
    config.__dict__.update(_content={"lr": 1e-4}, _parent=None)
    instance.__dict__.update(best=np.float64(0.5))
    return {
        "epoch": 3,
        "callbacks": {cls: {"best_model_score": np.float32(0.25), "monitor": None}, "one": instance},
        "hyper_parameters": config,
        "args": argparse.Namespace(lr=1e-4, out=Path("out")),
        "figures": defaultdict(list, loss=[np.float64(1), np.zeros(3)]),
        "state_dict": OrderedDict(a=torch.arange(6.0).view(2, 3), b=torch.ones(4, dtype=torch.float16)),
    }


@pytest.mark.parametrize("present", [True, False], ids=["zip", "before 1.6"])
def test_an_official_checkpoint_gives_its_tensors(lightning: type, tmp_path: Path, present: bool) -> None:
    content, path = checkpoint(lightning), tmp_path / "v1-5-pruned.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=present)
    forget()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    admitted = set(torch.serialization.get_safe_globals())
    found = read_tensors(path)
    assert found.keys() == content["state_dict"].keys()
    assert all(torch.equal(found[name], value) for name, value in content["state_dict"].items())
    assert not set(MODULES) & set(sys.modules)  # nothing was imported for it
    assert set(torch.serialization.get_safe_globals()) == admitted  # nor does a stand-in stay


class Evil:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.place),)


def test_beside_the_tensors_nothing_else_is_let_through(lightning: type, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({**checkpoint(lightning), "evil": Evil(trap)}, tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match=r"a\.ckpt: the file asks for .*mkdir, .*nothing was run"):
        read_tensors(tmp_path / "a.ckpt")
    assert not trap.exists()


@pytest.mark.parametrize(
    "asked", ["builtins.eval", "builtins.getattr", "os.system", "numpyx.load", "sys.exit", "posix.system"]
)
def test_names_are_admitted_whole(tmp_path: Path, asked: str) -> None:
    module, _, name = asked.rpartition(".")
    (tmp_path / "a.ckpt").write_bytes(
        b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X\x01\x00\x00\x001\x85R."
    )
    with pytest.raises(WeightsError, match=r"a\.ckpt"):
        read_tensors(tmp_path / "a.ckpt")
    assert not reading.BESIDE.fullmatch(asked.removeprefix("builtins."))


def test_a_stand_in_is_no_tensor(lightning: type, tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": np.float64(3)}}, tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match="'a' is no name of a tensor but of a Beside"):
        read_tensors(tmp_path / "a.ckpt")
    torch.save({"a": torch.zeros(2).to_sparse()}, tmp_path / "b.ckpt")
    with pytest.raises(WeightsError, match="a is no plain tensor"):
        read_tensors(tmp_path / "b.ckpt")


def test_damage_anywhere_is_one_line(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "a.pt"
    state = {"a": torch.arange(6.0), "b": torch.ones(2, 2)}
    torch.save(state, tmp_path / "zip")
    torch.save(state, tmp_path / "old", _use_new_zipfile_serialization=False)
    reading.st.save_file(state, tmp_path / "safe")
    for name in ("zip", "old", "safe"):
        whole = np.frombuffer((tmp_path / name).read_bytes(), "u1")
        for _ in range(60):
            blob = whole.copy()
            blob[rng.integers(0, len(blob), 2)] = rng.integers(0, 256, 2)
            path.write_bytes(blob.tobytes())
            try:
                read_tensors(path)
            except WeightsError as error:
                assert "a.pt" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    "value", [torch.tensor([1.0, float("nan")]), torch.tensor([float("inf")]).half(), torch.zeros(2, dtype=torch.int8),
              torch.zeros(2, dtype=torch.complex64)],
)  # fmt: skip
def test_numbers_that_no_weights_have(value: torch.Tensor) -> None:
    refuse_numbers({"a": torch.ones(3)}, "file")
    with pytest.raises(WeightsError, match=r"file: theirs (holds NaN|is stored as)"):
        refuse_numbers({"a": torch.ones(3), "b": value}, "file", {"b": "theirs"})


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path / "fifo", tmp_path, tmp_path / ("x" * 5000), Path("a\0b"), Path("/dev/zero")):
        with pytest.raises(WeightsError):
            read_tensors(place)


def test_a_safetensors_whose_header_is_no_table(tmp_path: Path) -> None:
    """torch knows the suffix and reads it, whatever stands at its head."""
    path = tmp_path / "a.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(WeightsError, match="damaged"):
        read_tensors(path)
