"""Checkpoints as training frameworks write them: the tensors are read, everything else is passed over unexecuted."""

import argparse
import os
import pickle
import subprocess
import sys
import types
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.optim.swa_utils import AveragedModel

from dpmesh.errors import WeightsError
from dpmesh.tensor_files import NESTS, read_tensors, refuse_numbers

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
    """As Stable Diffusion's official .ckpt, with its settings and figures in the same file."""
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
    tensors = read_tensors(path)
    assert tensors.keys() == content["state_dict"].keys()
    assert all(torch.equal(tensors[name], value) for name, value in content["state_dict"].items())
    assert not set(MODULES) & set(sys.modules)  # nothing was imported for it
    assert set(torch.serialization.get_safe_globals()) == admitted  # nor does a stand-in stay


class Evil:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.place),)


def test_code_among_the_settings_is_refused(lightning: type, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({**checkpoint(lightning), "evil": Evil(trap)}, tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match=r"a\.ckpt: the file asks for .*mkdir, .*nothing was run"):
        read_tensors(tmp_path / "a.ckpt")
    assert not trap.exists()


@pytest.mark.parametrize(
    "asked",
    ["builtins.eval", "builtins.getattr", "os.system", "sys.exit", "posix.system", "nt.system", "__builtin__.eval",
     "functools.partialmethod", "subprocess.Popen", "runpy.run_path"],
)  # fmt: skip
def test_names_of_the_standard_library_are_refused(tmp_path: Path, asked: str) -> None:
    module, _, name = asked.rpartition(".")
    (tmp_path / "a.ckpt").write_bytes(
        b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X\x01\x00\x00\x001\x85R."
    )
    with pytest.raises(WeightsError, match=r"a\.ckpt: (the file asks for|the file is damaged)"):
        read_tensors(tmp_path / "a.ckpt")


def test_a_number_is_no_tensor(lightning: type, tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": np.float64(3)}}, tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match="no named tensors in the file"):
        read_tensors(tmp_path / "a.ckpt")
    torch.save({"w": torch.ones(2), "epoch": np.int64(3), "loss": 0.5, "name": "x"}, tmp_path / "c.ckpt")
    assert list(read_tensors(tmp_path / "c.ckpt")) == ["w"]
    torch.save({"a": torch.zeros(2).to_sparse()}, tmp_path / "b.ckpt")
    with pytest.raises(WeightsError, match="a is no plain tensor"):
        read_tensors(tmp_path / "b.ckpt")


def test_damage_anywhere_is_one_line(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "a.pt"
    state = {"a": torch.arange(6.0), "b": torch.ones(2, 2)}
    torch.save(state, tmp_path / "zip")
    torch.save(state, tmp_path / "old", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "safe")
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


STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


@pytest.mark.parametrize("nest", NESTS)
def test_a_nested_state_is_unwrapped(tmp_path: Path, nest: str) -> None:
    flat = {"epoch": 3, nest: STATE, "optimizer": {"state": {}, "param_groups": []}}
    for content in (flat, {nest: {"model": STATE}}):
        torch.save(content, tmp_path / "a.pth")
        tensors = read_tensors(tmp_path / "a.pth")
        assert tensors.keys() == STATE.keys() and all(
            torch.equal(tensors[name], STATE[name]) for name in STATE
        )


def test_trained_weights_go_before_their_average(tmp_path: Path) -> None:
    average = {name: value + 1 for name, value in STATE.items()}
    torch.save({"state_dict_ema": average, "model_ema": average, "model": STATE}, tmp_path / "a.pth")
    assert torch.equal(read_tensors(tmp_path / "a.pth")["a.bias"], STATE["a.bias"])
    torch.save({"model_ema": average, "epoch": 1}, tmp_path / "a.pth")
    assert torch.equal(read_tensors(tmp_path / "a.pth")["a.bias"], average["a.bias"])


def test_prefixes_of_wrappers_are_removed(tmp_path: Path) -> None:
    """As torch's own wrappers name the parameters, and ema_pytorch (its file was read: online_model., ema_model.)."""
    layer = torch.nn.Linear(3, 2)
    wrapped = {
        "data parallel": torch.nn.DataParallel(layer).state_dict(),
        "averaged": AveragedModel(layer).state_dict(),
        "compiled": torch.compile(layer).state_dict(),  # pyright: ignore[reportFunctionMemberAccess]
        "compiled and parallel": {f"module._orig_mod.{n}": v for n, v in layer.state_dict().items()},
        "ema_pytorch": {
            "initted": torch.tensor(True),
            "step": torch.tensor(3),
            **{f"online_model.{n}": v + 1 for n, v in layer.state_dict().items()},
            **{f"ema_model.{n}": v for n, v in layer.state_dict().items()},
        },
    }
    for name, state in wrapped.items():
        torch.save(state, tmp_path / "a.pth")
        tensors = read_tensors(tmp_path / "a.pth")
        assert tensors.keys() == layer.state_dict().keys(), name
        assert all(torch.equal(tensors[n], v) for n, v in layer.state_dict().items()), name
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(mixed, tmp_path / "a.pth")
    assert read_tensors(tmp_path / "a.pth").keys() == mixed.keys()  # not a wrapper


class Config(dict):  # pyright: ignore[reportMissingTypeArgument]
    """Settings as yacs and EasyDict keep them: a dictionary with attributes."""


class Steps(list):  # pyright: ignore[reportMissingTypeArgument]
    pass


def test_settings_of_any_package_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Derived from dict and list, nested, of modules that the reader never imports."""
    config = Config(lr=1.0, inner=Config(sizes=Steps([1, 2])))
    config.__dict__["frozen"] = True
    monkeypatch.setitem(sys.modules, "their_config", module := types.ModuleType("their_config"))
    for cls in (Config, Steps):
        monkeypatch.setattr(cls, "__module__", "their_config")
        setattr(module, cls.__name__, cls)
    torch.save({"hyper_parameters": {"cfg": config}, "state_dict": STATE}, tmp_path / "last.ckpt")
    monkeypatch.delitem(sys.modules, "their_config")
    assert read_tensors(tmp_path / "last.ckpt").keys() == STATE.keys()
    assert "their_config" not in sys.modules


def test_a_whole_model_and_another_protocol_name_the_command(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "a.pth")
    with pytest.raises(
        WeightsError, match=r"whole model.*torch\.save\(m\[\"model\"\]\.state_dict\(\)"
    ) as caught:
        read_tensors(tmp_path / "a.pth")
    torch.save({"state_dict": STATE}, tmp_path / "b.pth", pickle_protocol=4)
    with pytest.raises(WeightsError, match=r"If you trust its source.*weights_only=False"):
        read_tensors(tmp_path / "b.pth")
    # the command does what it promises, and no name of a file does more
    name = "$(touch pwned)`touch pwned`\"'; touch pwned;'.pth"
    (tmp_path / "a.pth").rename(tmp_path / name)
    with pytest.raises(WeightsError, match="If you trust its source") as caught:
        read_tensors(tmp_path / name)
    command = str(caught.value).split("extract the tensors: ")[1].replace("python", sys.executable, 1)
    subprocess.run(["sh", "-c", command], check=True, cwd=tmp_path)
    assert not (tmp_path / "pwned").exists()
    assert list(read_tensors(tmp_path / "tensors.pth")) == ["weight", "bias"]
