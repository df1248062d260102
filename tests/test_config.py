"""The sizes of `paper` and `release`, counted without memory; configurations as data."""

import json

import pytest
import torch

from dpmesh.config import EMBEDDED, PAPER, PRESETS, RELEASE, DPMeshConfig
from dpmesh.config_io import from_dict, to_dict
from dpmesh.diffusion.lora import LoRALinear
from dpmesh.errors import ConfigError
from dpmesh.model import DPMesh
from dpmesh.pose_prior.vposer import VPoserDecoder
from dpmesh.pose_prior.vqvae import PoseVQVAE
from dpmesh.profiling import build_on_meta, describe
from dpmesh.regressor.tokens import build_pose_head

UNET = 859_508_800
"""SD 1.5's 859,520,964 less its head `out` (a norm and a convolution, 12,164), which DPMesh never runs."""


@pytest.fixture(scope="module")
def paper() -> DPMesh:
    return build_on_meta(PAPER)


@pytest.fixture(scope="module")
def release() -> DPMesh:
    return build_on_meta(RELEASE)


def parameters(module: torch.nn.Module, trainable: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def lora(model: DPMesh) -> list[LoRALinear]:
    return [m for m in model.modules() if isinstance(m, LoRALinear)]


@pytest.mark.parametrize("name", ["paper", "release"])
def test_both_have_the_sizes_of_stable_diffusion(name: str, request: pytest.FixtureRequest):
    model: DPMesh = request.getfixturevalue(name)
    backbone = model.backbone
    assert parameters(backbone.vae.encoder) == 34_163_592
    assert parameters(backbone.vae.quant_conv) == 72
    assert parameters(backbone.controlnet) == 360_279_040
    assert parameters(backbone.unet.time_embedding) == 2_050_560
    low_rank = sum(parameters(m.lora_down) + parameters(m.lora_up) for m in lora(model))
    assert parameters(backbone.unet) - low_rank == UNET
    assert all(p.device.type == "meta" for p in model.parameters())
    own, embedded = (
        {n: type(m) for n, m in one.named_children() if not n.startswith("pose_")}
        for one in (model, build_on_meta(EMBEDDED))
    )
    assert own == embedded  # the same classes at other sizes


def test_the_released_model_to_the_unit(release: DPMesh):
    assert len(lora(release)) == 144
    assert parameters(release.backbone.unet) - UNET == 19_943_424
    assert parameters(release.prompt) == 2 * 768 + 768
    assert (
        parameters(release.backbone.fusion) == 13_223_234
    )  # outmodules in reference/released_state_dict.tsv
    assert parameters(release.regressor) == 15_444_647  # all of its other trained tensors
    assert parameters(release.pose_prior) == 32 * 512 + 512 + 512 * 512 + 512 + 512 * 126 + 126
    # What the released optimiser really moves: LoRA, fusion, regressor and prompt; not VAE, ControlNet, VPoser.
    assert parameters(release, trainable=True) == 19_943_424 + 13_223_234 + 15_444_647 + 2_304


def test_the_paper_trains_cross_attention_and_the_controlnet(paper: DPMesh):
    names = [n for n, m in paper.backbone.unet.named_modules() if isinstance(m, LoRALinear)]
    assert len(names) == 4 * 16
    assert all(".attn2." in name for name in names)
    assert {m.lora_down.out_features for m in lora(paper)} == {64}
    frozen = ("backbone.vae", "pose_prior")
    assert all(parameters(paper.get_submodule(name), trainable=True) == 0 for name in frozen)
    low_rank = parameters(paper.backbone.unet) - UNET
    assert parameters(paper.backbone.unet, trainable=True) == low_rank
    assert parameters(paper.backbone.controlnet, trainable=True) == 360_279_040


def test_priors_share_one_interface(paper: DPMesh, release: DPMesh):
    assert isinstance(paper.pose_prior, PoseVQVAE) and paper.pose_prior.latent_shape == (48, 2048)
    assert paper.pose_prior.codebook.codes.shape == (2048, 256)
    assert isinstance(release.pose_prior, VPoserDecoder) and release.pose_prior.latent_shape == (32,)
    assert not list(release.pose_tokens.parameters())
    with pytest.raises(ConfigError, match=r"pose_code=31 must equal"):
        build_pose_head(31, (32,), 64)


def test_work_of_the_released_model():
    """522.1 GFLOP, of which the encoder 272.7, ControlNet 58.1, U-Net 185.7, fusion 2.05, heads 3.48 (GFLOP)."""
    report = describe("release")
    parts = {name: part["gflop"] for name, part in report["parts"].items()}
    assert report["total"]["gflop"] == pytest.approx(522.1, abs=0.1)
    assert parts["backbone.vae"] == pytest.approx(272.7, abs=0.05)
    assert parts["backbone.controlnet"] == pytest.approx(58.1, abs=0.05)
    assert parts["backbone.unet"] == pytest.approx(185.7, abs=0.05)
    assert parts["backbone.fusion"] == pytest.approx(2.05, abs=0.01)
    assert parts["regressor"] + parts["pose_prior"] + parts["body"] == pytest.approx(3.48, abs=0.01)
    assert sum(parts.values()) == pytest.approx(report["total"]["gflop"], rel=1e-3)
    assert report["total"]["parameters"] == sum(p["parameters"] for p in report["parts"].values())


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_presets_are_data_and_back(config: DPMeshConfig):
    assert from_dict(DPMeshConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_a_prior_without_a_kind_is_a_vqvae_and_a_strange_one_is_refused():
    """Weights that were saved before there were kinds still load."""
    plain = to_dict(EMBEDDED)
    del plain["pose_prior"]["kind"]
    assert from_dict(DPMeshConfig, plain) == EMBEDDED
    for strange in ({"kind": "gmm"}, {"kind": ["vposer"]}, 3):
        with pytest.raises(ConfigError, match="kind must be one of vqvae, vposer"):
            from_dict(DPMeshConfig, {**plain, "pose_prior": strange})
    with pytest.raises(ConfigError, match="unknown setting 'tokens'"):
        from_dict(DPMeshConfig, {**plain, "pose_prior": {"kind": "vposer", "tokens": 3}})
