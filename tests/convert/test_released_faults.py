"""What is refused of a released checkpoint, by name; nothing in it runs, and nothing half written is left."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dpmesh.config import DPMeshConfig
from dpmesh.convert.released import convert_released
from dpmesh.errors import DPMeshError, WeightsError

UNET, CONTROL = "backbone.sd_model.model.diffusion_model.", "backbone.sd_model.control_model."
MIDDLE = f"{UNET}middle_block.0.in_layers.2.weight"
SECOND = MIDDLE.replace("sd_model", "unet.unet")
HALF = f"{UNET}middle_block.1.transformer_blocks.0.attn1.to_q.lora_up.weight"
PACKED = "transformer.encoder.layers.0.self_attn.in_proj_weight"


def damaged(value: Tensor) -> Tensor:
    value = value.clone()
    value[-1] += 1
    return value


def shorter(value: Tensor) -> Tensor:
    return value[:-1]


def not_a_number(value: Tensor) -> Tensor:
    value = value.clone()
    value.view(-1)[-1] = torch.nan
    return value


def whole(value: Tensor) -> Tensor:
    return value.to(torch.int8)


def extra(_: None) -> Tensor:
    return torch.zeros(3)


FAULTS = {
    "a copy": ({SECOND: damaged}, rf"{SECOND} is a copy of (module\.)?{MIDDLE}, but not equal"),
    "the VAE's copy": (
        {"backbone.encoder_vq.quant_conv.bias": damaged},
        r"encoder_vq\.quant_conv\.bias is a copy",
    ),
    "missing": ({"kp_lifting.bias": None}, r"1 missing: prompt\.mlp\.0\.bias"),
    "missing rows": ({"query.weight": None}, r"1 missing: regressor\.query_position"),
    "extra": ({"optimizer_state": extra}, "1 unexpected: optimizer_state"),
    "extra inside": (
        {f"{CONTROL}input_blocks.0.0.extra": extra},
        r"1 unexpected: .*input_blocks\.0\.0\.extra",
    ),
    "shape": (
        {"cascade_shaoe_out.1.weight": shorter},
        r"1 mis-shaped: cascade_shaoe_out\.1\.weight 9×26 instead of 10×26",
    ),
    "NaN": (
        {"cascade_pose_out.0.weight": not_a_number},
        r"cascade_pose_out\.0\.weight holds NaN or infinity",
    ),
    "whole numbers": (
        {"cascade_pose_out.0.weight": whole},
        r"cascade_pose_out\.0\.weight is stored as torch\.int8, which no weights are",
    ),
    "packed shape": ({PACKED: shorter}, rf"3 mis-shaped: {PACKED} 47×16 instead of 16×16"),
    "half a LoRA": (
        {HALF: None, HALF.replace("sd_model", "unet.unet"): None},
        r"1 missing: .*to_q\.lora_up\.weight",
    ),
}


@pytest.mark.parametrize("change, message", FAULTS.values(), ids=FAULTS.keys())
def test_faults_are_named(state, small: DPMeshConfig, tmp_path: Path, change, message: str):
    refused(state, small, tmp_path, change, message, merge=False)


def test_half_a_lora_cannot_be_merged(state, small: DPMeshConfig, tmp_path: Path):
    change, _ = FAULTS["half a LoRA"]
    message = (
        r"1 missing: .*attn1\.to_q\.weight; 2 unexpected: .*to_q\.linear\.weight, .*to_q\.lora_down\.weight"
    )
    refused(state, small, tmp_path, change, message, merge=True)


def refused(state, small: DPMeshConfig, folder: Path, change, message: str, *, merge: bool) -> None:
    for name, new in change.items():
        if new is None:
            del state[f"module.{name}"]
        else:
            state[f"module.{name}"] = new(state.get(f"module.{name}"))
    torch.save(state, folder / "wrong.pth.tar")
    with pytest.raises(WeightsError, match=message) as caught:
        convert_released(folder / "wrong.pth.tar", folder / "out", small, merge_lora=merge)
    assert "wrong.pth.tar" in caught.value.where
    assert not (folder / "out").exists()


class Evil:
    """Pickled, it makes a folder when it is loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_a_malicious_file_is_refused_and_not_run(state, small: DPMeshConfig, tmp_path: Path, kind: str):
    path, trap = tmp_path / "evil.pth.tar", tmp_path / "trap"
    if kind == "torch":
        torch.save({**state, "module.evil": Evil(trap)}, path)
    else:
        path.write_bytes(pickle.dumps(Evil(trap), protocol=2))
    with pytest.raises(WeightsError, match=r"evil\.pth\.tar.*mkdir.*nothing was run"):
        convert_released(path, tmp_path / "out", small)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Evil(trap)))  # noqa: S301  # it would have worked
    assert trap.is_dir()


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(saved: Path, small: DPMeshConfig, tmp_path: Path, part: float):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(WeightsError, match=r"twin\.pth\.tar"):
        convert_released(saved, tmp_path / "out", small)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"no weights at all", b"PK\x03\x04 neither", bytes(range(256)) * 40])
def test_other_files_are_refused(small: DPMeshConfig, tmp_path: Path, content: bytes):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(WeightsError, match="other"):
        convert_released(tmp_path / "other", tmp_path / "out", small)
    with zipfile.ZipFile(tmp_path / "other", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(WeightsError, match="other"):
        convert_released(tmp_path / "other", tmp_path / "out", small)
    with pytest.raises(WeightsError, match="no such file"):
        convert_released(tmp_path / "absent", tmp_path / "out", small)


def test_a_failure_leaves_the_old_weights(saved: Path, state, small: DPMeshConfig, tmp_path: Path):
    convert_released(saved, tmp_path / "out", small)
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    del state["module.exponent"]
    torch.save(state, saved)
    with pytest.raises(DPMeshError):
        convert_released(saved, tmp_path / "out", small)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
