"""Stable Diffusion's original names (CompVis' latent-diffusion layout) to diffusers' names, which are ours.

The released DPMesh checkpoints, single-file Stable Diffusion and ControlNet's files all use the former. Whatever
follows a module's name (`weight`, `linear.weight`, `lora_up.weight`) stays as it is.
"""

import re

_PLAIN = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "middle_block_out.0": "controlnet_mid_block",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_VAE = {
    "encoder.mid.block_1": "encoder.mid_block.resnets.0",
    "encoder.mid.block_2": "encoder.mid_block.resnets.1",
    "encoder.mid.attn_1": "encoder.mid_block.attentions.0",
    "encoder.norm_out": "encoder.conv_norm_out",
    "encoder.conv_in": "encoder.conv_in",
    "encoder.conv_out": "encoder.conv_out",
    "quant_conv": "quant_conv",
}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_TRANSFORMER = re.compile(r"(norm|proj_in|proj_out|transformer_blocks)\.")


def unet_name(name: str, layers: int) -> str | None:
    """Our name for one of the U-Net or the ControlNet, both without their prefix; None for an unknown one.

    layers: residual blocks of each level (2 in Stable Diffusion); the old numbering runs through all levels.
    """
    if found := re.fullmatch(r"zero_convs\.(\d+)\.0\.(.+)", name):
        return f"controlnet_down_blocks.{found[1]}.{found[2]}"
    if found := _renamed(name, _PLAIN):
        stem, rest = found
        if not stem.startswith("mid_block"):
            return f"{stem}.{rest}"
        inner = _inner(rest)
        return inner and f"{stem}.{inner}"
    if not (found := re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)", name)):
        return None
    way, number, place, rest = found[1], int(found[2]), int(found[3]), found[4]
    if way == "input":
        level, layer = divmod(
            number - 1, layers + 1
        )  # number 0 is conv_in; each level ends with its downsampler
        if rest.startswith("op."):
            return f"down_blocks.{level}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        side = "down"
    else:
        level, layer = divmod(number, layers + 1)
        if rest.startswith("conv."):  # after the last layer's attention, or in its place
            return f"up_blocks.{level}.upsamplers.0.{rest}"
        side = "up"
    inner = _inner(rest)
    return inner and f"{side}_blocks.{level}.{'attentions' if place else 'resnets'}.{layer}.{inner}"


def vae_name(name: str) -> str | None:
    """Our name for one of the VAE's encoder, without prefix; None for an unknown one."""
    if found := re.fullmatch(r"encoder\.down\.(\d+)\.downsample\.conv\.(.+)", name):
        return f"encoder.down_blocks.{found[1]}.downsamplers.0.conv.{found[2]}"
    if found := re.fullmatch(r"encoder\.down\.(\d+)\.block\.(\d+)\.(.+)", name):
        stem, rest = f"encoder.down_blocks.{found[1]}.resnets.{found[2]}", found[3]
    elif found := _renamed(name, _VAE):
        stem, rest = found
    else:
        return None
    if "attentions" in stem:
        attention = _renamed(rest, _VAE_ATTENTION)
        return attention and f"{stem}.{attention[0]}.{attention[1]}"
    return f"{stem}.{rest.replace('nin_shortcut', 'conv_shortcut')}"


def _inner(rest: str) -> str | None:
    """Inside of a residual block or of a transformer."""
    if found := _renamed(rest, _RESNET):
        return ".".join(found)
    return rest if _TRANSFORMER.match(rest) else None


def _renamed(name: str, table: dict[str, str]) -> tuple[str, str] | None:
    """(new stem, what follows it) for a name that begins with one of the table's stems."""
    for stem, new in table.items():
        if name.startswith(f"{stem}."):
            return new, name.removeprefix(f"{stem}.")
    return None
