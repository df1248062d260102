"""Checks that losses, gradients and weights are finite, without a synchronisation of the device at every step."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor

from dpmesh.errors import DPMeshError
from dpmesh.io import atomic_write

BEHIND = {"cuda": 1}
"""By device type, how many steps late the flags are read; 0 elsewhere. A GPU has the next step queued meanwhile.

A step with a non-finite loss is then applied in memory and detected before the next one. Nothing of it is written,
since everything that writes reads all flags first.
"""


class DivergedError(DPMeshError):
    """The loss, its gradient or the weights are not finite."""


@dataclass(frozen=True)
class _Flags:
    step: int
    ids: list[str]
    flags: (
        Tensor  # (3,): a non-finite loss, a non-finite gradient, whether the first process wants a checkpoint
    )
    ready: torch.cuda.Event | None


class FiniteCheck:
    """Of one stage: `add` each step; `read` raises DivergedError for a bad one, on all processes at once."""

    def __init__(self, fabric: Fabric, stage: str, out: Path) -> None:
        self.fabric, self.stage, self.out = fabric, stage, out
        self.behind = BEHIND.get(fabric.device.type, 0)
        self._queue: list[_Flags] = []

    def add(self, step: int, ids: list[str], losses: list[Tensor], norm: Tensor, *, due: bool) -> None:
        """Queue the flags of a step. due: a checkpoint is wanted; the first process's clock counts."""
        finite = torch.stack([torch.isfinite(loss).all() for loss in losses]).all()
        wanted = torch.full((), float(due and self.fabric.global_rank == 0), device=norm.device)
        flags = torch.stack([(~finite).float(), (~torch.isfinite(norm)).float(), wanted])
        if self.fabric.world_size > 1:
            dist.all_reduce(flags)
        ready = None
        if flags.device.type == "cuda":
            host = torch.empty(len(flags), pin_memory=True)
            flags = host.copy_(flags, non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
        self._queue.append(_Flags(step, ids, flags, ready))

    def read(self, *, all_steps: bool = False) -> bool:
        """Read the flags of steps that are `behind` enough, or all; returns whether a checkpoint is wanted."""
        keep = 0 if all_steps else self.behind
        due = False
        while len(self._queue) > keep:
            noted = self._queue.pop(0)
            if noted.ready is not None:
                noted.ready.synchronize()
            loss, gradient, wanted = noted.flags.tolist()
            if loss or gradient:
                self._raise(noted, "loss" if loss else "gradient")
            due |= bool(wanted)
        return due

    def _raise(self, noted: _Flags, what: str) -> None:
        """Write the record ids of the batch, over all processes, to diverged.json and raise."""
        every: list[list[str]] = [noted.ids]
        if self.fabric.world_size > 1:
            every = [[] for _ in range(self.fabric.world_size)]
            dist.all_gather_object(every, noted.ids)
        named, path = [name for some in every for name in some], self.out / "diverged.json"
        if self.fabric.global_rank == 0:
            details = {"stage": self.stage, "step": noted.step, "what": what, "record_ids": named}
            atomic_write(path, json.dumps(details, indent=1) + "\n")
        raise DivergedError(
            f"the {what} is not a number at step {noted.step} of stage {self.stage}, "
            f"people {', '.join(named[:3])}{' ...' if len(named) > 3 else ''}",
            where=str(path),
            fix="Check these people or lower learning_rate; last.ckpt is from before.",
        )


@torch.no_grad()
def refuse_nonfinite(fabric: Fabric, tensors: dict[str, Tensor], where: Path) -> None:
    """Raise DivergedError, on all processes at once, where a tensor holds NaN or infinity in any process."""
    if not tensors:
        return
    local = [value.to_local() if hasattr(value, "to_local") else value for value in tensors.values()]  # pyright: ignore
    bad = torch.stack([(~torch.isfinite(v)).any().to(fabric.device) for v in local]).float()
    if fabric.world_size > 1:
        dist.all_reduce(bad)
    if not bad.any():
        return
    name = list(tensors)[int(bad.nonzero()[0])]
    raise DivergedError(
        f"{name} holds NaN or infinity, so nothing was written",
        where=str(where),
        fix="Lower learning_rate; last.ckpt is from before.",
    )
