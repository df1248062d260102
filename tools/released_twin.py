"""A file in exactly the layout of a released DPMesh checkpoint, filled with random numbers, at any width.

python tools/released_twin.py OUT.pth.tar [--small]

What the released files are called inside is a fact that a converter can be tested on without them. Written from that
list of names and shapes alone, not from the converter's rules; tests/convert holds it against the list's checksum.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dpmesh.config import RELEASE, DPMeshConfig
from dpmesh.diffusion.unet import UNetConfig
from dpmesh.diffusion.vae import VAEConfig

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """What a checkpoint holds besides our model: widths of CLIP, of VPoser's encoder, of SMPL."""

    clip: int = 768
    clip_inner: int = 3072
    clip_layers: int = 12
    vocabulary: int = 49408
    vertices: int = 6890
    faces: int = 13776


SMALL = Sizes(clip=8, clip_inner=16, clip_layers=1, vocabulary=32, vertices=48, faces=92)


def small_config() -> DPMeshConfig:
    """RELEASE with its widths scaled down, its depths as they are."""
    unet = replace(RELEASE.backbone.unet, channels=(16, 24, 32, 32), groups=8, heads=4, context_width=20)
    vae = replace(RELEASE.backbone.vae, channels=(8, 16, 24, 24), groups=4)
    return replace(
        RELEASE,
        backbone=replace(RELEASE.backbone, vae=vae, unet=unet, fused_channels=32, fused_groups=2),
        prompt=replace(RELEASE.prompt, width=20),
        regressor=replace(RELEASE.regressor, fused_channels=32, width=16, heads=4, inner=40, volume_inner=24),
        pose_prior=replace(RELEASE.pose_prior, hidden=28),
        lora_rank=3,
    )


class Layout(dict[str, Shape]):
    """Names and shapes, added layer by layer."""

    def conv(self, name: str, outward: int, inward: int, size: int = 3) -> None:
        self[f"{name}.weight"], self[f"{name}.bias"] = (outward, inward, size, size), (outward,)

    def linear(self, name: str, outward: int, inward: int, *, bias: bool = True, rank: int = 0) -> None:
        """rank: of a LoRA wrapped around it."""
        base = f"{name}.linear" if rank else name
        self[f"{base}.weight"] = (outward, inward)
        if bias:
            self[f"{base}.bias"] = (outward,)
        if rank:
            self[f"{name}.lora_down.weight"], self[f"{name}.lora_up.weight"] = (rank, inward), (outward, rank)

    def norm(self, name: str, width: int) -> None:
        self[f"{name}.weight"] = self[f"{name}.bias"] = (width,)

    # Stable Diffusion's original layout

    def residual(self, name: str, inward: int, outward: int, time: int) -> None:
        self.norm(f"{name}.in_layers.0", inward)
        self.conv(f"{name}.in_layers.2", outward, inward)
        self.linear(f"{name}.emb_layers.1", outward, time)
        self.norm(f"{name}.out_layers.0", outward)
        self.conv(f"{name}.out_layers.3", outward, outward)
        if inward != outward:
            self.conv(f"{name}.skip_connection", outward, inward, 1)

    def spatial(self, name: str, width: int, context: int, rank: int) -> None:
        block = f"{name}.transformer_blocks.0"
        self.norm(f"{name}.norm", width)
        self.conv(f"{name}.proj_in", width, width, 1)
        for attention, source in (("attn1", width), ("attn2", context)):
            self.linear(f"{block}.{attention}.to_q", width, width, bias=False, rank=rank)
            self.linear(f"{block}.{attention}.to_k", width, source, bias=False, rank=rank)
            self.linear(f"{block}.{attention}.to_v", width, source, bias=False, rank=rank)
            self.linear(f"{block}.{attention}.to_out.0", width, width, rank=rank)
        self.linear(f"{block}.ff.net.0.proj", 8 * width, width, rank=rank)
        self.linear(f"{block}.ff.net.2", width, 4 * width)
        for i in (1, 2, 3):
            self.norm(f"{block}.norm{i}", width)
        self.conv(f"{name}.proj_out", width, width, 1)

    def encoder_half(self, name: str, config: UNetConfig, inward: int, rank: int) -> list[int]:
        """Returns the width of every skip connection."""
        widths, time = config.channels, config.time_width
        self.linear(f"{name}time_embed.0", time, widths[0])
        self.linear(f"{name}time_embed.2", time, time)
        self.conv(f"{name}input_blocks.0.0", widths[0], inward)
        skips, number, before = [widths[0]], 1, widths[0]
        for level, width in enumerate(widths):
            for _ in range(config.layers):
                self.residual(f"{name}input_blocks.{number}.0", before, width, time)
                if config.attention[level]:
                    self.spatial(f"{name}input_blocks.{number}.1", width, config.context_width, rank)
                skips.append(width)
                before, number = width, number + 1
            if level < len(widths) - 1:
                self.conv(f"{name}input_blocks.{number}.0.op", width, width)
                skips.append(width)
                number += 1
        self.residual(f"{name}middle_block.0", before, before, time)
        self.spatial(f"{name}middle_block.1", before, config.context_width, rank)
        self.residual(f"{name}middle_block.2", before, before, time)
        return skips

    def unet(self, name: str, config: UNetConfig, rank: int = 0) -> None:
        skips = self.encoder_half(name, config, config.latent_channels, rank)
        number, before = 0, config.channels[-1]
        for level in reversed(range(len(config.channels))):
            width = config.channels[level]
            for layer in range(config.layers + 1):
                block, place = f"{name}output_blocks.{number}", 1
                self.residual(f"{block}.0", before + skips.pop(), width, config.time_width)
                if config.attention[level]:
                    self.spatial(f"{block}.1", width, config.context_width, rank)
                    place = 2
                if level and layer == config.layers:
                    self.conv(f"{block}.{place}.conv", width, width)
                before, number = width, number + 1
        self.norm(f"{name}out.0", before)
        self.conv(f"{name}out.2", config.latent_channels, before)

    def controlnet(self, name: str, config: UNetConfig, inward: int) -> None:
        for i, width in enumerate(self.encoder_half(name, config, inward, 0)):
            self.conv(f"{name}zero_convs.{i}.0", width, width, 1)
        self.conv(f"{name}middle_block_out.0", config.channels[-1], config.channels[-1], 1)

    def vae(self, name: str, config: VAEConfig) -> None:
        """The encoder; of the decoder's side only what the release keeps."""
        encoder, before = f"{name}encoder", config.channels[0]
        self.conv(f"{encoder}.conv_in", before, 3)
        for level, width in enumerate(config.channels):
            for layer in range(config.layers):
                self.vae_block(f"{encoder}.down.{level}.block.{layer}", before, width)
                before = width
            if level < len(config.channels) - 1:
                self.conv(f"{encoder}.down.{level}.downsample.conv", width, width)
        self.vae_block(f"{encoder}.mid.block_1", before, before)
        self.norm(f"{encoder}.mid.attn_1.norm", before)
        for part in ("q", "k", "v", "proj_out"):
            self.conv(f"{encoder}.mid.attn_1.{part}", before, before, 1)
        self.vae_block(f"{encoder}.mid.block_2", before, before)
        self.norm(f"{encoder}.norm_out", before)
        self.conv(f"{encoder}.conv_out", 2 * config.latent_channels, before)
        self.conv(f"{name}quant_conv", 2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.conv(f"{name}post_quant_conv", config.latent_channels, config.latent_channels, 1)

    def vae_block(self, name: str, inward: int, outward: int) -> None:
        self.norm(f"{name}.norm1", inward)
        self.conv(f"{name}.conv1", outward, inward)
        self.norm(f"{name}.norm2", outward)
        self.conv(f"{name}.conv2", outward, outward)
        if inward != outward:
            self.conv(f"{name}.nin_shortcut", outward, inward, 1)

    def clip(self, name: str, sizes: Sizes) -> None:
        width = sizes.clip
        self[f"{name}embeddings.position_ids"] = (1, 77)
        self[f"{name}embeddings.token_embedding.weight"] = (sizes.vocabulary, width)
        self[f"{name}embeddings.position_embedding.weight"] = (77, width)
        for i in range(sizes.clip_layers):
            layer = f"{name}encoder.layers.{i}"
            for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
                self.linear(f"{layer}.self_attn.{part}", width, width)
            self.linear(f"{layer}.mlp.fc1", sizes.clip_inner, width)
            self.linear(f"{layer}.mlp.fc2", width, sizes.clip_inner)
            self.norm(f"{layer}.layer_norm1", width)
            self.norm(f"{layer}.layer_norm2", width)
        self.norm(f"{name}final_layer_norm", width)

    def stable_diffusion(self, name: str, config: DPMeshConfig, sizes: Sizes, rank: int) -> None:
        for buffer in (
            "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
            "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
            "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
            "logvar",
        ):  # fmt: skip
            self[name + buffer] = (1000,)
        self.unet(f"{name}model.diffusion_model.", config.backbone.unet, rank)
        self.vae(f"{name}first_stage_model.", config.backbone.vae)
        self.clip(f"{name}cond_stage_model.transformer.text_model.", sizes)

    # What DPMesh adds

    def attention(self, name: str, width: int) -> None:
        self[f"{name}.in_proj_weight"], self[f"{name}.in_proj_bias"] = (3 * width, width), (3 * width,)
        self.linear(f"{name}.out_proj", width, width)

    def layer(self, name: str, width: int, inner: int, attentions: tuple[str, ...]) -> None:
        for attention in attentions:
            self.attention(f"{name}.{attention}", width)
        self.linear(f"{name}.linear1", inner, width)
        self.linear(f"{name}.linear2", width, inner)
        for i in range(len(attentions) + 1):
            self.norm(f"{name}.norm{i + 1}", width)

    def regressor(self, config: DPMeshConfig) -> None:
        c = config.regressor
        self["spose_shape_cam_param"], self["exponent"] = (3, c.width), ()
        self["query.weight"] = (c.joints, c.width)
        self["transformer.smpl_tgt"] = self["transformer.kp_tgt"] = (c.width,)
        self["pos_embed_1d.pos_table"] = (c.volume_depth * 64, c.width)
        self.linear("kp_lifting", config.prompt.width, 2)
        self.conv("down_linear", c.width, c.fused_channels, 1)
        self.conv("conv2d_to_3d", c.width * c.volume_depth, c.fused_channels, 1)
        self["conv_3d_coord.0.weight"], self["conv_3d_coord.0.bias"] = (
            (c.width, c.width + 3, 1, 1, 1),
            (c.width,),
        )
        for i in range(c.volume_layers):
            self.layer(f"refine_3d.layers.{i}", c.width, c.volume_inner, ("self_attn",))
        self.norm("refine_3d.norm", c.width)
        for i in range(c.encoder_layers):
            self.layer(f"transformer.encoder.layers.{i}", c.width, c.inner, ("self_attn",))
        decoder = "transformer.decoder"
        self.norm(f"{decoder}.norm", c.width)
        for i in range(c.decoder_layers):
            self.layer(f"{decoder}.layers.{i}", c.width, c.inner, ("self_attn", "multihead_attn"))
            self.linear(f"{decoder}.joint_img_regress.{i}", 3, c.width + (3 if i else 0))
            for head, out in (("root_pose", 6), ("pose", c.pose_code), ("shaoe", 10), ("cam", 3)):
                self.linear(f"cascade_{head}_out.{i}", out, c.width + (out if i else 0))
        self.linear(f"{decoder}.fc_pos_3d.0", c.width, 3)
        self.norm(f"{decoder}.fc_pos_3d.1", c.width)
        self.linear(f"{decoder}.fc_pos_3d.3", c.width, c.width)

    def fusion(self, name: str, config: DPMeshConfig) -> None:
        fine, medium, coarse, coarsest = config.backbone.unet.channels
        joints, out = config.backbone.joints, config.backbone.fused_channels
        self.conv(f"{name}0.0", fine, fine)
        self.norm(f"{name}0.1", fine)
        self.conv(f"{name}0.3", fine, fine)
        self.conv(f"{name}1.0", medium + joints, medium + joints)
        self.conv(f"{name}2.0", out, fine + medium + coarse + coarsest + 2 * joints, 1)
        self.norm(f"{name}2.1", out)

    def vposer(self, name: str, latent: int, hidden: int, joints: int) -> None:
        for i, width in ((1, joints * 3), (2, hidden)):
            self.norm(f"{name}enc_bn{i}", width)
            self[f"{name}enc_bn{i}.running_mean"] = self[f"{name}enc_bn{i}.running_var"] = (width,)
            self[f"{name}enc_bn{i}.num_batches_tracked"] = ()
        self.linear(f"{name}enc_fc1", hidden, joints * 3)
        self.linear(f"{name}enc_fc2", hidden, hidden)
        self.linear(f"{name}enc_mu", latent, hidden)
        self.linear(f"{name}enc_logvar", latent, hidden)
        self.linear(f"{name}dec_fc1", hidden, latent)
        self.linear(f"{name}dec_fc2", hidden, hidden)
        self.linear(f"{name}dec_out", joints * 6, hidden)

    def smpl(self, name: str, sizes: Sizes) -> None:
        v = sizes.vertices
        self[f"{name}betas"] = (1, 10)
        self[f"{name}shapedirs"], self[f"{name}posedirs"] = (v, 3, 10), (v, 3, 207)
        self[f"{name}v_template"], self[f"{name}faces"] = (1, v, 3), (sizes.faces, 3)
        self[f"{name}J_regressor"], self[f"{name}weights"] = (24, v), (v, 24)


def released_layout(
    config: DPMeshConfig = RELEASE, sizes: Sizes | None = None
) -> tuple[Layout, dict[str, str]]:
    """(names and shapes without the prefix `module.`, copy -> the name of what it is a copy of)."""
    sizes, layout = sizes or Sizes(), Layout()
    own = config.backbone
    layout.regressor(config)
    layout.fusion("backbone.outmodules.", config)
    prior = config.pose_prior
    layout.vposer("vposer.vposer.bodyprior_", prior.latent, prior.hidden, prior.joints)  # pyright: ignore[reportAttributeAccessIssue]
    layout.smpl("human_model_layer.th_", sizes)
    first = "backbone.sd_model."
    layout.stable_diffusion(first, config, sizes, config.lora_rank)
    layout.controlnet(f"{first}control_model.", own.unet, own.unet.latent_channels + own.joints)
    copies = {"backbone.unet.unet." + n.removeprefix(first): n for n in layout if n.startswith(first)}
    vae = f"{first}first_stage_model."
    copies |= {"backbone.encoder_vq." + n.removeprefix(vae): n for n in layout if n.startswith(vae)}
    return layout, copies


def is_integer(name: str) -> bool:
    return name.endswith(("position_ids", "num_batches_tracked", "th_faces"))


def fill(layout: Layout, seed: int = 0) -> dict[str, Tensor]:
    """Random numbers of the size of real weights; whole ones where the release has them."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(0, 48, shape, generator=generator)
        if is_integer(name)
        else torch.empty(shape).uniform_(-0.03, 0.03, generator=generator)
        for name, shape in layout.items()
    }


def released_state(
    config: DPMeshConfig = RELEASE, sizes: Sizes | None = None, prefix: str = "module.", seed: int = 0
) -> dict[str, Tensor]:
    """A whole checkpoint; copies share their memory, as in the release."""
    layout, copies = released_layout(config, sizes)
    state = fill(layout, seed)
    state |= {copy: state[first] for copy, first in copies.items()}
    return {prefix + name: value for name, value in state.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="widths scaled down")
    options = parser.parse_args()
    state = released_state(small_config(), SMALL) if options.small else released_state()
    torch.save(state, options.out)
    print(f"{options.out}: {len(state)} names, {options.out.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
