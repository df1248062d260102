"""A released DPMesh checkpoint (EternalEvan/DPMesh, .pth.tar) as a folder that DPMesh.from_pretrained loads."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpmesh.assets import sha256
from dpmesh.body.files import BodyArrays
from dpmesh.body.resolve import SOURCE
from dpmesh.checkpoint import Provenance, refuse_misfits, write_weights
from dpmesh.config import DPMeshConfig
from dpmesh.config_io import to_dict
from dpmesh.convert.layouts import fit, unet_name, vae_name, wanted_shapes
from dpmesh.convert.released_body import differences, keep_smpl, licensed_arrays
from dpmesh.errors import InputError, WeightsError
from dpmesh.tensor_files import read_tensors, refuse_numbers

LICENCE = (
    "the checkpoint's own terms; it builds on Stable Diffusion 1.5 (CreativeML OpenRAIL-M) and holds VPoser's decoder"
    " (research only)"
)


@dataclass(frozen=True)
class Sorted:
    """A checkpoint's tensors: kept, under our names; licensed, under the release's; dropped, counted by reason.

    original: our name -> theirs.
    """

    kept: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    original: dict[str, str] = field(default_factory=dict[str, str])
    licensed: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    dropped: Counter[str] = field(default_factory=Counter[str])


def convert_released(
    file: Path,
    out: Path,
    config: DPMeshConfig,
    *,
    merge_lora: bool = False,
    body: tuple[BodyArrays, dict[str, Any]] | None = None,
    regressors: Mapping[str, Path] | None = None,
    smpl_to: Path | None = None,
    overwrite: bool = False,
) -> Provenance:
    """Write OUT/config.json and OUT/model.safetensors; returns the provenance in the former.

    config: RELEASE, or a version of smaller widths. merge_lora: add the low-rank updates to their linear layers.
    body: from user_body; compared with the checkpoint's and recorded, never copied. The checkpoint's own SMPL arrays
    are written, with the regressors, only into smpl_to, where a different file of that name is replaced only with
    overwrite. Raises WeightsError with the first names that are missing, unexpected, mis-shaped, unequal copies or not
    finite; InputError for a checkpoint without a usable body; OutputError.
    """
    tensors = read_tensors(file)
    first, copies = without_copies(tensors, str(file))
    parts = sort_out(first, config.diffusion.unet.layers)
    config = replace(config, lora_rank=0) if merge_lora else config
    wanted = wanted_shapes(config)
    adapted = sum(name.endswith("lora_down.weight") for name in parts.kept)
    state, names = fit(parts.kept, wanted)
    called = {name: parts.original.get(old, old) for name, old in names.items()}
    refuse_misfits(
        wanted,
        {name: tuple(value.shape) for name, value in state.items()},
        str(file),
        called,
    )
    refuse_numbers(state, str(file), called)
    theirs = licensed_arrays(
        {name.removeprefix("human_model_layer."): value for name, value in parts.licensed.items()}
    )
    record: dict[str, Any] = {} if body is None else dict(body[1])
    if body is not None and theirs:
        record["differs_from_checkpoint"] = differences(body[0], theirs)
    if smpl_to is not None:
        try:
            keep_smpl(smpl_to, theirs, regressors or {}, overwrite)
        except InputError as error:
            raise InputError(
                f"its SMPL arrays are no body: {error.what}",
                where=str(file),
                fix="Convert it without keeping them.",
            ) from error
    provenance: Provenance = {
        "source": SOURCE,
        "file": file.name,
        "sha256": sha256(file),
        "licence": LICENCE,
        "tensors": len(tensors),
        "copies": copies,
        "dropped": dict(parts.dropped),
        "lora": f"{adapted} layers {'merged' if merge_lora else 'kept'}",
        "largest_control_weight": _largest(state, "backbone.controlnet.controlnet_"),
        "body": record,
    }
    write_weights(out, state, to_dict(config), provenance)
    return provenance


def without_copies(tensors: Mapping[str, Tensor], where: str) -> tuple[dict[str, Tensor], int]:
    """Each tensor once, under its canonical name, and the number of copies; WeightsError if a copy differs."""
    first: dict[str, Tensor] = {}
    called: dict[str, str] = {}
    for name, value in tensors.items():
        own = canonical(name)
        called.setdefault(own, name)
        if not _same(first.setdefault(own, value), value):
            raise WeightsError(
                f"{name} is a copy of {called[own]}, but not equal to it",
                where=where,
                fix="The file is damaged, or of another model than the released one.",
            )
    return first, len(tensors) - len(first)


def sort_out(tensors: Mapping[str, Tensor], layers: int) -> Sorted:
    """Sort every tensor. Unknown ones are kept under their own names, to be reported as unexpected."""
    parts = Sorted()
    rows: dict[str, Tensor] = {}
    for name, value in tensors.items():
        end = fate(name, layers)
        if name.startswith(LICENSED):
            parts.licensed[name] = value
        if end is not None and end.dropped:
            parts.dropped[end.dropped] += 1
            continue
        targets = (name,) if end is None else end.targets
        if targets[0] in JOINED:
            rows[name] = value
            continue
        even = len(targets) == 1 or (value.ndim > 0 and value.shape[0] % len(targets) == 0)
        pieces = value.chunk(len(targets)) if len(targets) > 1 and even else (value,) * len(targets)
        parts.kept.update(zip(targets, pieces, strict=True))
        parts.original.update(dict.fromkeys(targets, name))
    for ours, theirs in JOINED.items():
        if all(name in rows for name in theirs):
            below = [rows[name].reshape(-1, rows[name].shape[-1]) for name in theirs]
            if len({part.shape[1] for part in below}) == 1:
                parts.kept[ours] = torch.cat(below)
                parts.original[ours] = " + ".join(theirs)
    return parts


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    # Tensors that share storage in the file need not be read.
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)


def _largest(state: Mapping[str, Tensor], prefix: str) -> float:
    """Largest magnitude under a prefix; 0 for ControlNet's output convolutions means that it was never trained."""
    return max(
        (float(value.abs().max()) for name, value in state.items() if name.startswith(prefix)), default=0.0
    )


# The names of a released DPMesh checkpoint, its misspelling included, and their places in our model, or why they are
# dropped: 3,573 names, of which 1,728 are second and third copies under another name.


COPIES = (
    ("backbone.unet.unet.", "backbone.sd_model."),
    ("backbone.encoder_vq.", "backbone.sd_model.first_stage_model."),
)
"""Modules that the release registers twice: (the copy's prefix, the first one's)."""

JOINED = {
    "regressor.query_content": ("transformer.smpl_tgt", "transformer.kp_tgt"),
    "regressor.query_position": ("spose_shape_cam_param", "query.weight"),
}
"""Ours -> theirs, concatenated as rows."""

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

_WRAPPERS = re.compile(r"((module|model|network|net|ema_model|ema)\.)+")
"""Prefixes of DataParallel, Lightning modules and averaged models; no tensor of the release begins like one."""
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
    """targets: our names; several share the tensor in equal parts along the first axis. dropped: the reason, if it is
    not kept."""

    targets: tuple[str, ...] = ()
    dropped: str = ""


def canonical(name: str) -> str:
    """A tensor's first name: without prefixes of training frameworks, copies under the original's name."""
    if wrapper := _WRAPPERS.match(name):
        name = name[wrapper.end() :]
    for copy, first in COPIES:
        if name.startswith(copy):
            return first + name.removeprefix(copy)
    return name


def fate(name: str, layers: int) -> Fate | None:
    """The fate of a canonical name; None for an unknown one.

    layers: residual blocks per level of the U-Net (2).
    """
    for pattern, reason in _DROPPED:
        if re.match(pattern, name):
            return Fate(dropped=reason)
    for ours, theirs in JOINED.items():
        if name in theirs:
            return Fate((ours,))
    if name.startswith(_DIFFUSION):
        ours = _backbone(name.removeprefix(_DIFFUSION), layers)
        return Fate((ours,)) if ours else None
    for pattern, ours, attentions in _LAYERS:
        if match := re.match(pattern, name):
            return Fate(_layer(f"{ours}{match[1]}.", name[match.end() :], attentions))
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
    """Our names for a tensor of a transformer layer: torch keeps query, key and value in one matrix, we in three."""
    part, _, leaf = rest.partition(".")
    if part not in attentions:
        return (f"{ours}{_LAYER.get(part, part)}.{leaf}",)
    stem = ours + attentions[part]
    if leaf in _SPLIT:
        return tuple(f"{stem}.{which}.{_SPLIT[leaf]}" for which in "qkv")
    return (f"{stem}.{leaf.replace('out_proj', 'out')}",)
