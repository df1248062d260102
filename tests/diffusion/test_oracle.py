"""Encoder, U-Net and ControlNet against diffusers' own modules with the same random weights, at small widths.

benchmarks/accuracy/oracle.py is the comparison; as a script it runs at Stable Diffusion's widths.
"""

import dataclasses

import pytest
import torch
from torch import nn

from benchmarks.accuracy import oracle
from dpmesh.diffusion.controlnet import ControlNet
from dpmesh.diffusion.unet import UNet, UNetConfig
from dpmesh.diffusion.vae import VAEConfig, VAEEncoder

TOLERANCE = 1e-4
VAE = VAEConfig(channels=(8, 16, 16, 24), groups=4)
SMALL = UNetConfig(
    channels=(16, 24, 32, 32), groups=8, heads=2, context_width=12, map_sizes=(8, 16, 32), timestep=7
)
ODD = UNetConfig(
    channels=(8, 16, 16, 24),
    attention=(False, True, True, False),
    layers=1,
    groups=4,
    heads=4,
    context_width=12,
)


@pytest.fixture(scope="module", autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("image_range", ["unit", "symmetric"])
def test_the_encoder(image_range: str):
    config = dataclasses.replace(VAE, image_range=image_range)
    assert oracle.compare_vae(config, oracle.inputs(12))["latent"] <= TOLERANCE


@pytest.mark.parametrize("config", [SMALL, ODD], ids=["sd", "odd"])
def test_the_controlnet(config: UNetConfig):
    errors = oracle.compare_controlnet(config, oracle.inputs(12, batch=2))
    assert len(errors) == 4 * config.layers + 5
    assert max(errors.values()) <= TOLERANCE, errors


@pytest.mark.parametrize("config", [SMALL, ODD], ids=["sd", "odd"])
def test_the_unet_its_features_and_its_maps(config: UNetConfig):
    errors = oracle.compare_unet(config, oracle.inputs(12, batch=2))
    assert set(errors) == {f"feature {s}" for s in (4, 8, 16, 32)} | {f"map {s}" for s in config.map_sizes}
    assert max(errors.values()) <= TOLERANCE, errors


def test_weights_load_both_ways_without_a_key_map():
    """Names are the same; diffusers has further layers, which are never run here."""
    pairs: dict[str, tuple[nn.Module, nn.Module]] = {
        "vae": (VAEEncoder(VAE), oracle.their_vae(VAE)),
        "unet": (UNet(SMALL), oracle.their_unet(SMALL)),
        "controlnet": (ControlNet(SMALL, oracle.JOINTS), oracle.their_controlnet(SMALL)),
    }
    for part, (ours, theirs) in pairs.items():
        loaded = theirs.load_state_dict(ours.state_dict(), strict=False)
        assert loaded.unexpected_keys == []
        assert all(name.startswith(oracle.NEVER_RUN[part]) for name in loaded.missing_keys), part
        mine = {name: torch.randn_like(value) for name, value in theirs.state_dict().items()}
        loaded = ours.load_state_dict(mine, strict=False)
        assert loaded.missing_keys == []
        assert all(name.startswith(oracle.NEVER_RUN[part]) for name in loaded.unexpected_keys), part
