"""bf16 is taken where the device computes in it, and nowhere else unless asked for."""

import logging
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dpmesh.train import trainer as loop
from dpmesh.train.config import Settings
from dpmesh.train.distributed import BF16_INSTRUCTIONS, in_bf16

PRODUCTS = ("convolution", "mm", "addmm", "bmm", "baddbmm")


class Products(TorchDispatchMode):
    """Collects of what type the factors of matrix products and convolutions are."""

    def __init__(self) -> None:
        super().__init__()
        self.types = set[torch.dtype]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in PRODUCTS:
            self.types |= {value.dtype for value in args if isinstance(value, torch.Tensor)}
        return func(*args, **(kwargs or {}))


def processor(monkeypatch: pytest.MonkeyPatch, *instructions: str) -> None:
    capabilities = {name: name in instructions for name in (*BF16_INSTRUCTIONS, "avx2")}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.mark.parametrize("instruction", BF16_INSTRUCTIONS)
def test_auto_asks_the_processor(monkeypatch: pytest.MonkeyPatch, instruction: str):
    processor(monkeypatch, "avx2", instruction)
    assert in_bf16("auto", "cpu") and in_bf16("bf16-mixed", "cpu") and not in_bf16("32-true", "cpu")
    processor(monkeypatch, "avx2")
    assert not in_bf16("auto", "cpu") and in_bf16("bf16-mixed", "cpu")
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # an older torch
    assert not in_bf16("auto", "cpu")


def test_auto_asks_the_gpu_and_takes_no_emulation(monkeypatch: pytest.MonkeyPatch):
    processor(monkeypatch, *BF16_INSTRUCTIONS)
    for real in (True, False):
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True, real=real: including_emulation or real,
        )
        assert in_bf16("auto", "cuda") == real
    assert not in_bf16("auto", "mps")


@pytest.mark.parametrize("kind", ["images", "pretrain"])
def test_without_instructions_no_product_of_a_run_is_in_bf16(
    child: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    """Nor of its optimizer: Muon's are its own, and AdamW takes the parameters that are no matrices."""
    processor(monkeypatch, "avx2")
    dtypes, _ = trained(child, tmp_path, kind, optimizer="muon")
    assert torch.float32 in dtypes and torch.bfloat16 not in dtypes


def test_with_them_they_are(
    child: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    processor(monkeypatch, "amx_bf16")
    caplog.set_level(logging.INFO)
    dtypes, settings = trained(child, tmp_path, "images")
    assert torch.bfloat16 in dtypes
    assert "stage images: steps 0 to 1 of batch 4, bf16" in caplog.text
    loop.train(replace(settings, out=settings.out + "_other", precision="32-true"))
    assert "stage images: steps 0 to 1 of batch 4, fp32" in caplog.text


def test_a_prior_is_trained_in_fp32_whatever_there_is(
    child: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    processor(monkeypatch, "amx_bf16")
    caplog.set_level(logging.INFO)
    dtypes, _ = trained(child, tmp_path, "prior")
    assert torch.float32 in dtypes and torch.bfloat16 not in dtypes
    assert "stage prior: steps 0 to 1 of batch 4, fp32" in caplog.text


def trained(child: ModuleType, tmp_path: Path, kind: str, **more: Any) -> tuple[set[torch.dtype], Settings]:
    settings: Settings = child.settings(
        tmp_path / "run", child.stage(kind, steps=1), model="reading", precision="auto", **more
    )
    with Products() as products:
        loop.train(settings)
    return products.types, settings
