"""What becomes of every tensor of a released DPMesh checkpoint: its place in our model, or why it is dropped.

The only table of the release's foreign names, its misspelling included (shared facts: 3,573 names, of which 1,728 are
second and third copies under another name).
"""

import re
from typing import NamedTuple

from dpmesh.convert.ldm import unet_name, vae_name

COPIES = (
    ("backbone.unet.unet.", "backbone.sd_model."),
    ("backbone.encoder_vq.", "backbone.sd_model.first_stage_model."),
)
"""Modules that the release registers twice: (the copy's prefix, the first one's)."""

JOINED = {
    "regressor.query_content": ("transformer.smpl_tgt", "transformer.kp_tgt"),
    "regressor.query_position": ("spose_shape_cam_param", "query.weight"),
}
"""Ours -> theirs, laid below one another as rows."""

LICENSED = "human_model_layer.th_"

_DROPPED = (
    (r"backbone\.sd_model\.cond_stage_model\.", "CLIP's text encoder, never run"),
    (r"backbone\.sd_model\.model\.diffusion_model\.out\.", "the U-Net's noise head, never run"),
    (r"backbone\.sd_model\.first_stage_model\.post_quant_conv\.", "entry of the VAE's decoder, never run"),
    (
        r"backbone\.sd_model\.(betas|alphas_\w+|(sqrt|log)_\w+|posterior_\w+|logvar)$",
        "schedule of the diffusion, never used",
    ),
    (r"vposer\.vposer\.bodyprior_enc_", "VPoser's encoder, never run"),
    (r"pos_embed_1d\.pos_table$", "a fixed table of sines, computed"),
    (re.escape(LICENSED), "SMPL's licensed arrays"),
)

_DIFFUSION = "backbone.sd_model."
_SPLIT = {"in_proj_weight": "weight", "in_proj_bias": "bias"}
_LAYER = {"linear1": "feed_forward.0", "linear2": "feed_forward.2"}
_LAYERS = (
    (r"refine_3d\.layers\.(\d+)\.", "regressor.volume.layers.", {"self_attn": "attention"}),
    (r"transformer\.encoder\.layers\.(\d+)\.", "regressor.encoder.", {"self_attn": "attention"}),
    (
        r"transformer\.decoder\.layers\.(\d+)\.",
        "regressor.decoder.",
        {"self_attn": "self_attention", "multihead_attn": "cross_attention"},
    ),
)
_MOVED = {
    "kp_lifting.": "prompt.mlp.0.",
    "exponent": "regressor.volume.exponent",
    "conv2d_to_3d.": "regressor.volume.lift.",
    "conv_3d_coord.0.": "regressor.volume.mix.",
    "refine_3d.norm.": "regressor.volume.norm.",
    "down_linear.": "regressor.down.",
    "transformer.decoder.norm.": "regressor.norm.",
    "transformer.decoder.joint_img_regress.": "regressor.joint_place.",
    "transformer.decoder.fc_pos_3d.": "regressor.place_position.",
    "cascade_root_pose_out.": "regressor.root_head.layers.",
    "cascade_pose_out.": "regressor.pose_head.layers.",
    "cascade_shaoe_out.": "regressor.shape_head.layers.",  # their spelling
    "cascade_cam_out.": "regressor.camera_head.layers.",
    "vposer.vposer.bodyprior_dec_": "pose_prior.bodyprior_dec_",
    "backbone.outmodules.0.": "backbone.fusion.from_32.",
    "backbone.outmodules.1.0.": "backbone.fusion.from_16.",
    "backbone.outmodules.2.": "backbone.fusion.mix.",
}


class Fate(NamedTuple):
    """targets: our names; of several each gets an equal part along the first axis. dropped: why, if nothing is kept."""

    targets: tuple[str, ...] = ()
    dropped: str = ""


def canonical(name: str) -> str:
    """A tensor's first name: without the prefix of data-parallel training, copies under the original's name."""
    name = name.removeprefix("module.")
    for copy, first in COPIES:
        if name.startswith(copy):
            return first + name.removeprefix(copy)
    return name


def fate(name: str, layers: int) -> Fate | None:
    """What becomes of a canonical name; None for one that no release has.

    layers: residual blocks of each level of the U-Net (2).
    """
    for pattern, reason in _DROPPED:
        if re.match(pattern, name):
            return Fate(dropped=reason)
    for ours, theirs in JOINED.items():
        if name in theirs:
            return Fate((ours,))
    if name.startswith(_DIFFUSION):
        found = _backbone(name.removeprefix(_DIFFUSION), layers)
        return Fate((found,)) if found else None
    for pattern, ours, attentions in _LAYERS:
        if found := re.match(pattern, name):
            return Fate(_layer(f"{ours}{found[1]}.", name[found.end() :], attentions))
    for theirs, ours in _MOVED.items():
        if name == theirs or (theirs[-1] in "._" and name.startswith(theirs)):
            return Fate((ours + name.removeprefix(theirs),))
    return None


def _backbone(name: str, layers: int) -> str | None:
    for theirs, ours in (
        ("model.diffusion_model.", "backbone.unet."),
        ("control_model.", "backbone.controlnet."),
    ):
        if name.startswith(theirs):
            inner = unet_name(name.removeprefix(theirs), layers)
            return inner and ours + inner
    inner = vae_name(name.removeprefix("first_stage_model."))
    return inner and f"backbone.vae.{inner}"


def _layer(ours: str, rest: str, attentions: dict[str, str]) -> tuple[str, ...]:
    """One of a transformer's layers: torch keeps query, key and value in one matrix, we in three."""
    part, _, leaf = rest.partition(".")
    if part not in attentions:
        return (f"{ours}{_LAYER.get(part, part)}.{leaf}",)
    stem = ours + attentions[part]
    if leaf in _SPLIT:
        return tuple(f"{stem}.{which}.{_SPLIT[leaf]}" for which in "qkv")
    return (f"{stem}.{leaf.replace('out_proj', 'out')}",)
