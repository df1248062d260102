"""A released DPMesh checkpoint (EternalEvan/DPMesh, .pth.tar) as a folder that DPMesh.from_pretrained loads."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpmesh.assets import sha256
from dpmesh.body.files import BodyArrays
from dpmesh.checkpoint import Provenance, refuse_misfits, write_weights
from dpmesh.configurations import DPMeshConfig
from dpmesh.convert.bodies import differences, keep_smpl, licensed_arrays
from dpmesh.convert.fitting import fit, wanted_shapes
from dpmesh.convert.reading import read_tensors, refuse_numbers
from dpmesh.convert.released_names import JOINED, LICENSED, canonical, fate
from dpmesh.errors import InputError, WeightsError
from dpmesh.plain import to_plain

SOURCE = "a released DPMesh checkpoint"
"""How the provenance of converted weights names where they come from."""
LICENCE = (
    "the checkpoint's own terms; it builds on Stable Diffusion 1.5 (CreativeML OpenRAIL-M) and holds VPoser's decoder"
    " (research only)"
)


@dataclass(frozen=True)
class Sorted:
    """A checkpoint's tensors: kept, under our names; licensed, by the release's; dropped, counted by reason.

    came: our name -> theirs.
    """

    kept: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    came: dict[str, str] = field(default_factory=dict[str, str])
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
    """Write OUT/config.json and OUT/model.safetensors; returns the provenance that stands in the former.

    config: RELEASE, or its widths scaled down. merge_lora: add the low-rank updates to their linear layers.
    body: as user_body finds it; compared with the checkpoint's and recorded, never copied. The checkpoint's own SMPL
    arrays are written, with the regressors, only into smpl_to, where another file of that name is replaced only with
    overwrite. Raises WeightsError with the first names that are
    missing, unexpected, mis-shaped, unequal copies or not finite, InputError for a checkpoint without a usable body,
    OutputError.
    """
    tensors = read_tensors(file)
    first, copies = without_copies(tensors, str(file))
    parts = sort_out(first, config.diffusion.unet.layers)
    config = replace(config, lora_rank=0) if merge_lora else config
    wanted = wanted_shapes(config)
    adapted = sum(name.endswith("lora_down.weight") for name in parts.kept)
    state, came = fit(parts.kept, wanted)
    called = {name: parts.came.get(old, old) for name, old in came.items()}
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
    write_weights(out, state, to_plain(config), provenance)
    return provenance


def without_copies(tensors: Mapping[str, Tensor], where: str) -> tuple[dict[str, Tensor], int]:
    """Each tensor once, under its canonical name, and how many copies there were; WeightsError if one differs."""
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
    """Every tensor to its place. What no release has stays among the kept, where it will be unexpected."""
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
        parts.came.update(dict.fromkeys(targets, name))
    for ours, theirs in JOINED.items():
        if all(name in rows for name in theirs):
            below = [rows[name].reshape(-1, rows[name].shape[-1]) for name in theirs]
            if len({part.shape[1] for part in below}) == 1:
                parts.kept[ours] = torch.cat(below)
                parts.came[ours] = " + ".join(theirs)
    return parts


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    # Tensors saved together share one place in the file, and need not be read.
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)


def _largest(state: Mapping[str, Tensor], prefix: str) -> float:
    """Largest magnitude below a prefix. Of ControlNet's last convolutions: 0 says that it was never trained."""
    return max(
        (float(value.abs().max()) for name, value in state.items() if name.startswith(prefix)), default=0.0
    )
