"""Compares encoder, U-Net and ControlNet with diffusers' modules.

    python -m benchmarks.accuracy.oracle [--only vae] [--json FILE]

Both have the same sizes, random weights and inputs. The error is the largest difference over the root mean square of
diffusers' output. As a script at Stable Diffusion 1.5's widths, one part after the other (at most 4 GiB);
tests/diffusion/test_oracle.py takes the functions at small widths.

Our ControlNet reads latent and heatmaps concatenated; diffusers' reads a latent of `in_channels` and adds an embedding
of an image. So theirs is built with in_channels = 4 + joints and gets our concatenation as its latent, and the
embedding is replaced by a module that returns zero. All layers after the first convolution are unchanged.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import resource
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.machine import report_result
from dpmesh.backbone.timm import let_torchvision_load
from dpmesh.config import PAPER
from dpmesh.diffusion.controlnet import ControlNet
from dpmesh.diffusion.unet import UNet, UNetConfig
from dpmesh.diffusion.vae import VAEConfig, VAEEncoder

let_torchvision_load()  # diffusers imports it where it is installed
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel  # noqa: E402

JOINTS = 30
NEVER_RUN = {
    "vae": ("decoder.", "post_quant_conv."),
    "unet": ("conv_norm_out.", "conv_out."),
    "controlnet": ("controlnet_cond_embedding.",),
}
"""Beginnings of the names that only diffusers' modules have."""


class NoEmbedding(nn.Module):
    def forward(self, hint: Tensor) -> float:
        return 0.0


@dataclass
class Inputs:
    """crop (b, 3, 256, 256) in [-1, 1]; latent (b, 4, 32, 32); hint (b, 30, 32, 32); prompt (b, 30, d)."""

    crop: Tensor
    latent: Tensor
    hint: Tensor
    prompt: Tensor


def inputs(context: int, batch: int = 1) -> Inputs:
    g = torch.Generator().manual_seed(0)
    return Inputs(
        crop=torch.rand(batch, 3, 256, 256, generator=g) * 2 - 1,
        latent=torch.randn(batch, 4, 32, 32, generator=g),
        hint=torch.rand(batch, JOINTS, 32, 32, generator=g),
        prompt=torch.randn(batch, JOINTS, context, generator=g),
    )


def their_vae(config: VAEConfig) -> AutoencoderKL:
    """The whole auto-encoder, its decoder as small as can be: it is not compared."""
    levels = len(config.channels)
    return AutoencoderKL(
        block_out_channels=config.channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=config.layers,
        norm_num_groups=config.groups,
        latent_channels=config.latent_channels,
    ).eval()


def _sizes(config: UNetConfig) -> dict[str, object]:
    return {
        "block_out_channels": config.channels,
        "layers_per_block": config.layers,
        "norm_num_groups": config.groups,
        "attention_head_dim": config.heads,  # SD 1.5's own misnomer: the number of heads
        "cross_attention_dim": config.context_width,
        "down_block_types": tuple(
            "CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in config.attention
        ),
    }


def their_unet(config: UNetConfig) -> UNet2DConditionModel:
    ups = tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in config.attention[::-1])
    return UNet2DConditionModel(sample_size=32, up_block_types=ups, **_sizes(config)).eval()


def their_controlnet(config: UNetConfig) -> ControlNetModel:
    model = ControlNetModel(in_channels=config.latent_channels + JOINTS, **_sizes(config))
    model.controlnet_cond_embedding = NoEmbedding()
    for conv in (*model.controlnet_down_blocks, model.controlnet_mid_block):
        nn.init.normal_(conv.weight, std=conv.in_channels**-0.5)  # zero convolutions would hide everything
    return model.eval()


def take(ours: nn.Module, theirs: nn.Module, part: str) -> None:
    """Their weights in our module (which may be on the meta device), strictly and without a key map."""
    state = {n: v for n, v in theirs.state_dict().items() if not n.startswith(NEVER_RUN[part])}
    ours.load_state_dict(state, strict=True, assign=True)


@torch.no_grad()
def compare_vae(config: VAEConfig, data: Inputs) -> dict[str, float]:
    theirs = their_vae(config)
    with torch.device("meta"):
        ours = VAEEncoder(config).eval()
    take(ours, theirs, "vae")
    expected = theirs.encode(data.crop).latent_dist.mode() * config.latent_scale
    crop = data.crop if config.image_range == "unit" else (data.crop + 1) / 2
    return {"latent": relative(ours(crop), expected)}


@torch.no_grad()
def compare_controlnet(config: UNetConfig, data: Inputs) -> dict[str, float]:
    theirs = their_controlnet(config)
    with torch.device("meta"):
        ours = ControlNet(config, JOINTS).eval()
    take(ours, theirs, "controlnet")
    joined = torch.cat([data.latent, data.hint], dim=1)
    down, middle = theirs(joined, config.timestep, data.prompt, data.hint, return_dict=False)
    outputs = ours(data.latent, data.hint, data.prompt)
    return {
        f"residual {i}": relative(a, b) for i, (a, b) in enumerate(zip(outputs, [*down, middle], strict=True))
    }


@torch.no_grad()
def compare_unet(config: UNetConfig, data: Inputs) -> dict[str, float]:
    """Features and attention maps, with random control residuals."""
    theirs = their_unet(config)
    with torch.device("meta"):
        ours = UNet(config).eval()
    take(ours, theirs, "unet")
    control = residuals(ours, data.latent)
    kept, remove = watch(theirs, config)
    theirs(
        data.latent,
        config.timestep,
        data.prompt,
        down_block_additional_residuals=tuple(control[:-1]),
        mid_block_additional_residual=control[-1],
    )
    remove()
    features, maps = ours(data.latent, data.prompt, control)
    errors = {
        f"feature {f.shape[-1]}": relative(f, b) for f, b in zip(features, kept.features(), strict=True)
    }
    for size, attention_map in maps.items():
        errors[f"map {size}"] = relative(attention_map, kept.map(size))
    return errors


def residuals(unet: UNet, latent: Tensor) -> list[Tensor]:
    """Random control for each skip connection and for the middle."""
    g, sizes = torch.Generator().manual_seed(1), [latent.shape[-1]]
    for level in range(4):
        sizes += [sizes[-1]] * unet.config.layers + ([sizes[-1] // 2] if level < 3 else [])
    widths = [*unet.skip_widths, unet.config.channels[-1]]
    return [
        torch.randn(len(latent), w, s, s, generator=g) * 0.1
        for w, s in zip(widths, [*sizes, sizes[-1]], strict=True)
    ]


class Kept:
    """Recorded by hooks in diffusers' U-Net: outputs of the layers that are features, and all attention maps."""

    def __init__(self) -> None:
        self.layers: dict[str, Tensor] = {}
        self.maps: dict[int, list[Tensor]] = {}

    def features(self) -> list[Tensor]:
        """The layer before the last of the three coarser levels, and the very last: output blocks 1, 4, 7 and 11."""
        return [self.layers[str(i)] for i in range(4)]

    def map(self, size: int) -> Tensor:
        return torch.stack(self.maps[size]).mean(0)


def watch(unet: UNet2DConditionModel, config: UNetConfig) -> tuple[Kept, object]:
    """Hooks that record features and cross-attention maps; and a function that removes them."""
    kept, handles = Kept(), []
    for i, block in enumerate(unet.up_blocks):
        layers = getattr(block, "attentions", None) or block.resnets
        layer = layers[-1] if i == 3 else layers[-2]

        def keep(_m: object, _a: object, out: object, name: str = str(i)) -> None:
            kept.layers[name] = (out[0] if isinstance(out, tuple) else out).clone()

        handles.append(layer.register_forward_hook(keep))
    for name, module in unet.named_modules():
        if name.endswith("attn2") and not name.startswith("mid_block"):

            def keep_map(m: object, args: tuple, kwargs: dict, _out: object) -> None:
                hidden, context = args[0], kwargs["encoder_hidden_states"]
                size = int(hidden.shape[1] ** 0.5)
                if size not in config.map_sizes:
                    return
                query, key = (m.head_to_batch_dim(f) for f in (m.to_q(hidden), m.to_k(context)))
                scores = m.get_attention_scores(query, key).unflatten(0, (-1, m.heads)).mean(1)
                kept.maps.setdefault(size, []).append(scores.mT.unflatten(-1, (size, size)))

            handles.append(module.register_forward_hook(keep_map, with_kwargs=True))
    return kept, lambda: [h.remove() for h in handles]


def relative(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the root mean square of the expected values."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return float((actual - expected).abs().max() / expected.square().mean().sqrt())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=sorted(NEVER_RUN))
    parser.add_argument("--json", help="write the result there")
    options = parser.parse_args()
    backbone = PAPER.backbone
    data, parts = inputs(backbone.unet.context_width), {}
    for part, compare in (
        ("vae", lambda: compare_vae(backbone.vae, data)),
        ("controlnet", lambda: compare_controlnet(backbone.unet, data)),
        ("unet", lambda: compare_unet(backbone.unet, data)),
    ):
        if options.only in (None, part):
            began = time.monotonic()
            errors = compare()
            parts[part] = {"worst": max(errors.values()), "errors": errors}
            print(part, f"{parts[part]['worst']:.2e}", f"{time.monotonic() - began:.0f} s", flush=True)
    result = {
        "torch": torch.__version__,
        "error": "largest difference / root mean square",
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1),
        "parts": parts,
    }
    report_result(result, options.json)


if __name__ == "__main__":
    main()
