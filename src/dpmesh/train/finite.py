"""Whether losses, gradients and states are numbers, without the device waiting for the host at every step."""

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
"""By device type, how many steps behind the flags are read; 0 elsewhere. A GPU has the next step queued meanwhile.

A step whose loss is no number is then taken in memory, and found before the one after it is: nothing of it is ever
written, since everything that writes looks at all flags first.
"""


class DivergedError(DPMeshError):
    """The loss, its gradient or the state is not a number."""


@dataclass(frozen=True)
class _Noted:
    step: int
    ids: list[str]
    flags: Tensor  # (3,): losses and gradients that are no numbers, and whether the first process wants a checkpoint
    ready: torch.cuda.Event | None


class Watch:
    """One stage's. `note` tells it each step, `look` raises DivergedError for a bad one, on all processes at once."""

    def __init__(self, fabric: Fabric, stage: str, out: Path) -> None:
        self.fabric, self.stage, self.out = fabric, stage, out
        self.behind = BEHIND.get(fabric.device.type, 0)
        self._noted: list[_Noted] = []

    def note(self, step: int, ids: list[str], losses: list[Tensor], norm: Tensor, *, due: bool) -> None:
        """due: a checkpoint is wanted; the first process's clock counts."""
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
        self._noted.append(_Noted(step, ids, flags, ready))

    def look(self, *, all_steps: bool = False) -> bool:
        """Look at the steps that are `behind` enough, or at all; returns whether a checkpoint is wanted."""
        keep = 0 if all_steps else self.behind
        due = False
        while len(self._noted) > keep:
            noted = self._noted.pop(0)
            if noted.ready is not None:
                noted.ready.synchronize()
            loss, gradient, wanted = noted.flags.tolist()
            if loss or gradient:
                self._raise(noted, "loss" if loss else "gradient")
            due |= bool(wanted)
        return due

    def _raise(self, noted: _Noted, what: str) -> None:
        """With the batch's record ids, all processes', in diverged.json."""
        everyone: list[list[str]] = [noted.ids]
        if self.fabric.world_size > 1:
            everyone = [[] for _ in range(self.fabric.world_size)]
            dist.all_gather_object(everyone, noted.ids)
        named, path = [name for some in everyone for name in some], self.out / "diverged.json"
        if self.fabric.global_rank == 0:
            told = {"stage": self.stage, "step": noted.step, "what": what, "record_ids": named}
            atomic_write(path, json.dumps(told, indent=1) + "\n")
        raise DivergedError(
            f"the {what} is not a number at step {noted.step} of stage {self.stage}, "
            f"people {', '.join(named[:3])}{' ...' if len(named) > 3 else ''}",
            where=str(path),
            fix="Look at these people or lower learning_rate; last.ckpt is from before.",
        )


@torch.no_grad()
def refuse_nonfinite(fabric: Fabric, tensors: dict[str, Tensor], where: Path) -> None:
    """DivergedError, on all processes at once, where one of the tensors holds NaN or infinity in any process."""
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
        f"{name} holds numbers that are none, so nothing was written",
        where=str(where),
        fix="Lower learning_rate; last.ckpt is from before.",
    )
