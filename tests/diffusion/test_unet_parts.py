"""Sizes of Stable Diffusion 1.5's parts, to the unit; identities of the small ones."""

import pytest
import torch

from dpmesh.diffusion.attention import Attention, attend
from dpmesh.diffusion.blocks import sinusoid
from dpmesh.diffusion.controlnet import ControlNet
from dpmesh.diffusion.lora import LoRALinear, cross_attention, inject_lora, merge_lora, released_targets
from dpmesh.diffusion.unet import UNet, UNetConfig
from dpmesh.diffusion.vae import VAEConfig, VAEEncoder
from dpmesh.errors import ConfigError

SMALL = UNetConfig(channels=(8, 16, 16, 24), layers=1, groups=4, heads=2, context_width=12)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_full_size_parameter_counts():
    with torch.device("meta"):
        vae, unet, control = VAEEncoder(VAEConfig()), UNet(UNetConfig()), ControlNet(UNetConfig(), 30)
        assert parameters(vae.encoder) == 34_163_592
        assert parameters(vae.quant_conv) == 72
        assert parameters(control) == 360_279_040
        assert parameters(unet.time_embedding) == 2_050_560
        before = parameters(unet)
        assert inject_lora(unet, 64, released_targets) == 144
        assert parameters(unet) - before == 19_943_424


def inputs(batch: int = 2):
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(batch, 4, 32, 32, generator=generator),
        torch.rand(batch, 30, 32, 32, generator=generator),
        torch.randn(batch, 30, 12, generator=generator),
    )


def test_features_and_maps_have_the_sizes_of_the_paper():
    latent, hint, context = inputs()
    unet, control = UNet(SMALL), ControlNet(SMALL, 30)
    features, maps = unet(latent, context, control(latent, hint, context))
    assert [f.shape[1:] for f in features] == [(24, 4, 4), (16, 8, 8), (16, 16, 16), (8, 32, 32)]
    assert {size: tuple(m.shape) for size, m in maps.items()} == {8: (2, 30, 8, 8), 16: (2, 30, 16, 16)}
    for attention_map in maps.values():  # each cell spreads a whole over the tokens
        torch.testing.assert_close(attention_map.sum(1), torch.ones_like(attention_map[:, 0]))


def test_a_new_controlnet_changes_nothing():
    latent, hint, context = inputs()
    assert all(not residual.any() for residual in ControlNet(SMALL, 30)(latent, hint, context))


def test_control_reaches_every_feature():
    torch.manual_seed(0)
    latent, hint, context = inputs(1)
    unet, control = UNet(SMALL), ControlNet(SMALL, 30)
    for conv in (*control.controlnet_down_blocks, control.controlnet_mid_block):
        torch.nn.init.normal_(conv.weight, std=0.1)
    with torch.no_grad():
        one = unet(latent, context, control(latent, hint, context))[0]
        other = unet(latent, context, control(latent, hint.flip(1), context))[0]
    assert all((a - b).abs().max() > 1e-4 for a, b in zip(one, other, strict=True))


def test_map_path_equals_fused_path():
    torch.manual_seed(0)
    attention = Attention(16, heads=4, context_width=12)
    x, context = torch.randn(2, 9, 16), torch.randn(2, 5, 12)
    plain, no_map = attention(x, context)
    explicit, mean_map = attention(x, context, return_map=True)
    assert no_map is None and mean_map is not None
    torch.testing.assert_close(plain, explicit, atol=1e-6, rtol=1e-5)


def test_attention_is_the_same_with_and_without_gradients():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    with torch.no_grad():
        fused = attend(q, k, v)
    torch.testing.assert_close(attend(q, k, v), fused)


def test_latent_is_the_scaled_mean_and_eight_times_smaller():
    config = VAEConfig(channels=(8, 8, 16, 16), layers=1, groups=4, latent_scale=0.5)
    vae, unscaled = (
        VAEEncoder(config),
        VAEEncoder(VAEConfig(channels=(8, 8, 16, 16), layers=1, groups=4, latent_scale=1.0)),
    )
    unscaled.load_state_dict(vae.state_dict())
    crop = torch.rand(1, 3, 64, 64)
    assert vae(crop).shape == (1, 4, 8, 8)
    torch.testing.assert_close(vae(crop), unscaled(crop) * 0.5)


def test_image_range_is_a_switch():
    unit = VAEConfig(channels=(8, 8, 16, 16), layers=1, groups=4, latent_scale=1.0, image_range="unit")
    symmetric = VAEConfig(channels=(8, 8, 16, 16), layers=1, groups=4, latent_scale=1.0)
    one, other = VAEEncoder(unit), VAEEncoder(symmetric)
    other.load_state_dict(one.state_dict())
    crop = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(one(crop * 2 - 1), other(crop))


def test_sinusoid_has_cosines_first():
    embedding = sinusoid(torch.tensor([0.0, 1.0]), 6)
    torch.testing.assert_close(embedding[0], torch.tensor([1.0, 1, 1, 0, 0, 0]))
    torch.testing.assert_close(embedding[1, 0], torch.tensor(1.0).cos())


def test_lora_starts_at_zero_and_merges_exactly():
    torch.manual_seed(0)
    unet = UNet(SMALL)
    latent, _, context = inputs(1)
    control = [torch.zeros(1, 1, 1, 1)] * (len(unet.skip_widths) + 1)
    with torch.no_grad():
        before = unet(latent, context, control)[0]
        count = inject_lora(unet, 3, cross_attention)
        assert count == 4 * (3 + 1 + 3 * 2)  # q, k, v, out of the blocks going down, in the middle, going up
        for a, b in zip(before, unet(latent, context, control)[0], strict=True):
            torch.testing.assert_close(a, b)
        for module in unet.modules():
            if isinstance(module, LoRALinear):
                torch.nn.init.normal_(module.lora_up.weight, std=0.3)
        adapted = unet(latent, context, control)[0]
        assert (adapted[-1] - before[-1]).abs().max() > 1e-4
        assert merge_lora(unet) == count
        for a, b in zip(adapted, unet(latent, context, control)[0], strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_configs_refuse_nonsense():
    with pytest.raises(ConfigError, match="4 levels"):
        UNetConfig(channels=(32, 64))
    with pytest.raises(ConfigError, match="multiples"):
        UNetConfig(channels=(33, 64, 64, 64))
    with pytest.raises(ConfigError, match="levels"):
        VAEConfig(channels=(32, 64, 64, 64), stem_stride=2)


def test_features_come_from_before_the_last_layer_of_a_block():
    """Output blocks 1, 4 and 7 of the released code: the second of three layers; of the finest level the last."""
    latent, hint, context = inputs(1)
    unet, control = UNet(SMALL), ControlNet(SMALL, 30)
    made: dict[str, torch.Tensor] = {}
    for name in ("0.resnets.0", "1.attentions.0", "2.attentions.0", "3.attentions.1"):

        def keep(_module: object, _inputs: object, output: object, name: str = name) -> None:
            made[name] = output[0] if isinstance(output, tuple) else output

        unet.up_blocks.get_submodule(name).register_forward_hook(keep)
    with torch.no_grad():
        features, _ = unet(latent, context, control(latent, hint, context))
    assert all(torch.equal(a, b) for a, b in zip(features, made.values(), strict=True))
