"""Devices by name, index or torch.device; and no float64 where a device may not have it."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dpmesh.device import pick_device
from dpmesh.errors import ConfigError
from dpmesh.inference.predictor import Predictor


def test_devices_by_name_and_by_torch_device(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for name in ("cpu", "cuda", "cuda:0", "cuda:1", "mps"):
        assert pick_device(name) == pick_device(torch.device(name)) == torch.device(name)
    assert pick_device("auto") == torch.device("cuda")
    with pytest.raises(ConfigError, match=r"cuda:2 is not available here\. There is cuda:0 to cuda:1"):
        pick_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"cuda:1 is not available here\. There is cuda:0\."):
        pick_device(torch.device("cuda:1"))


def test_missing_and_unknown_devices_are_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(ConfigError, match=rf"{name} is not available here\. Use --device auto"):
            pick_device(name)
    for name in ("", "gpu", "cuda:", "cuda:x", "cuda:-1", "meta", "xpu", "cpu\n", "x" * 5000):
        with pytest.raises(ConfigError, match=r"unknown device.*Choose of auto") as caught:
            pick_device(name)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


class WithoutFloat64(TorchDispatchMode):
    """As Apple's MPS, which has no float64: an operation that gives one fails."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, torch.Tensor) and value.dtype in (torch.float64, torch.complex128):
                raise TypeError(f"{func} gave float64")
        return result


@pytest.mark.parametrize(
    "options", [{"refine": False}, {}, {"refine": False, "flip": True}], ids=["plain", "refine", "flip"]
)
def test_a_prediction_has_no_float64_on_its_device(options: dict[str, bool], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("roma.mappings._supports_float64", lambda _: False)  # as roma finds on MPS
    predictor = Predictor.from_pretrained("embedded", "cpu", threads=1, **options)  # pyright: ignore[reportArgumentType]
    assert isinstance(predictor.model.body, torch.nn.Module)
    kinds = {value.dtype for value in predictor.model.body.buffers()}
    assert torch.float64 not in kinds
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    box = np.array([[60.0, 20.0, 200.0, 230.0]])
    keypoints = np.concatenate(
        [np.random.default_rng(1).uniform([80, 40], [180, 220], (1, 17, 2)), np.ones((1, 17, 1))], 2
    )
    with WithoutFloat64():
        assert len(predictor(image, keypoints=keypoints, boxes=None).people) == 1
        assert len(predictor(image, boxes=box).people) == 1
    with pytest.raises(TypeError, match="float64"), WithoutFloat64():
        torch.ones(2).double()
