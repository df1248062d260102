"""Several processes: how they share a model, agree on results and end together; activation checkpointing."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from dpmesh.diffusion.attention import Transformer2D
from dpmesh.diffusion.blocks import ResnetBlock
from dpmesh.errors import ConfigError, DPMeshError
from dpmesh.regressor.transformer import DecoderLayer, EncoderLayer
from dpmesh.train.config import Precision, Settings

BLOCKS = (ResnetBlock, Transformer2D, EncoderLayer, DecoderLayer)
"""What FSDP shards, and checkpointing computes again, one by one."""
BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16")
"""Of x86, x86 and ARM, as torch.cpu.get_capabilities names them."""


def make_fabric(settings: Settings) -> Fabric:
    """One process, several on this machine (settings.processes), or what torchrun started on any number of them."""
    elastic = "TORCHELASTIC_RUN_ID" in os.environ
    here = int(os.environ["LOCAL_WORLD_SIZE"]) if elastic else settings.processes
    machines = int(os.environ["WORLD_SIZE"]) // here if elastic else 1
    strategy: Any = "auto"
    if settings.strategy == "fsdp":
        strategy = ModelParallelStrategy(shard, data_parallel_size=here * machines, tensor_parallel_size=1)
    elif here * machines > 1:
        # The keypoint stage leaves the decoder without gradients, which DDP does not expect.
        strategy = "ddp_find_unused_parameters_true"
    try:
        fabric = Fabric(accelerator="auto", strategy=strategy, devices=here, num_nodes=machines)
    except (MisconfigurationException, ValueError) as error:  # more processes than GPUs, and the like
        line = " ".join(str(error).split())[:200]
        raise ConfigError(f"{here} processes cannot be had here ({line})", where="processes") from error
    fabric.launch()
    return fabric


def shard(module: nn.Module, mesh: Any) -> Any:
    """FSDP: each process keeps its part of every block, and of the rest as one. Scalars cannot be sharded and stay
    whole (`average_scalars`)."""
    scalars = {p for p in module.parameters() if p.ndim == 0}
    for parameter in module.parameters():  # it cuts rows, and channels_last weights have none
        parameter.data = parameter.data.contiguous()
    for part in module.modules():
        if isinstance(part, BLOCKS):
            fully_shard(part, mesh=mesh["data_parallel"])
    return fully_shard(module, mesh=mesh["data_parallel"], ignored_params=scalars)


def average_scalars(fabric: Fabric, module: nn.Module) -> None:
    """Average over the processes the gradients of scalars, which FSDP leaves alone."""
    if is_sharded(fabric):
        for parameter in module.parameters():
            if parameter.ndim == 0 and parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= fabric.world_size


def is_sharded(fabric: Fabric) -> bool:
    return isinstance(fabric.strategy, ModelParallelStrategy)


@contextmanager
def whole(module: nn.Module) -> Generator[None, None, None]:
    """Within it the module's parts can be used outside of its forward, sharded or not."""
    if isinstance(module, FSDPModule):
        module.unshard()
    yield
    if isinstance(module, FSDPModule):
        module.reshard()


def in_bf16(precision: Precision, device: str) -> bool:
    """Whether matrix products are in bf16 on a device of this type ("cpu", "cuda").

    "auto": where the device has instructions for it. A processor without them takes up to a hundred times as long.
    """
    if precision != "auto":
        return precision == "bf16-mixed"
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(
        torch.cpu, "get_capabilities", dict[str, Any]
    )  # missing in older versions of torch
    return device == "cpu" and any(capabilities().get(name, False) for name in BF16_INSTRUCTIONS)


def attention_kernels(device: str) -> AbstractContextManager[Any]:
    """Those for training; on a CPU diffusion.attention.attend needs none."""
    if device == "cpu":
        return nullcontext()
    return sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


def recompute_activations(module: nn.Module) -> int:
    """Keep only the inputs of each block that is trained through, and compute the rest again for the gradients.

    Names and numbers stay the same. Returns how many blocks there are.
    """
    blocks = [part for part in module.modules() if isinstance(part, BLOCKS)]
    for block in blocks:
        again = partial(_as_before, block)  # the second time is outside of the objective's forward
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=again)
    return len(blocks)


def _as_before(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), attention_kernels(next(block.parameters()).device.type)


T = TypeVar("T")
PATIENCE = 5.0
"""Seconds that a failed process waits to learn whether another one ended first."""
RAISED_BY_ALL = "raised by every process"
"""Note on an error that every process raises, of which the first prints the line."""


class ProcessError(DPMeshError):
    """Another process of the training ended with an error."""


def on_first(fabric: Fabric, action: Callable[[], T]) -> T:
    """Run the action in the first process; its result, or its DPMeshError, reaches all of them."""
    outcome: tuple[T | None, DPMeshError | None] = (None, None)
    if fabric.global_rank == 0:
        try:
            outcome = (action(), None)
        except DPMeshError as error:
            outcome = (None, error)
    if fabric.world_size > 1:
        outcome = fabric.broadcast(outcome)
    return _value(fabric, outcome)


def on_all(fabric: Fabric, action: Callable[[], T]) -> T:
    """Run the action in every process; where one raises a DPMeshError, all raise the first of them."""
    outcome: tuple[T | None, DPMeshError | None]
    try:
        outcome = (action(), None)
    except DPMeshError as error:
        outcome = (None, error)
    if fabric.world_size > 1:
        errors: list[DPMeshError | None] = [None] * fabric.world_size
        dist.all_gather_object(errors, outcome[1])
        if (error := next((e for e in errors if e is not None), None)) is not None:
            outcome = (None, error)
    return _value(fabric, outcome)


def _value(fabric: Fabric, outcome: tuple[Any, DPMeshError | None]) -> Any:
    value, error = outcome
    if error is None:
        return value
    if fabric.global_rank:
        error.add_note(RAISED_BY_ALL)
    raise error


@contextmanager
def ending_together(fabric: Fabric) -> Generator[None]:
    """An error here also ends the processes that this one started (Settings.processes)."""
    launcher: Any = getattr(fabric.strategy, "launcher", None)
    children: list[Any] = list(getattr(launcher, "procs", ()))
    try:
        yield
    except BaseException as error:
        another = isinstance(error, RuntimeError) and (_cut_off(error) or _one_ended(children))
        _end(children)
        if another:  # a collective failed because a process is gone
            raise ProcessError(
                "another process of this training ended with an error",
                where="processes",
                fix="It printed why, or was killed; the same command resumes from the last checkpoint.",
            ) from error
        raise


def _cut_off(error: RuntimeError) -> bool:
    """Whether gloo or NCCL report that a process is gone."""
    return isinstance(error, dist.DistError) or "by peer" in str(error)


def _one_ended(children: list[Any]) -> bool:
    """Whether another process ends with an error within PATIENCE."""
    until = time.monotonic() + PATIENCE
    while children and time.monotonic() < until:
        if any(process.poll() for process in children):
            return True
        time.sleep(0.05)
    return False


def _end(children: list[Any]) -> None:
    if not children:
        return
    for thread in threading.enumerate():  # it would kill this process for what happens here
        if thread.name == "child-process-observer":
            thread._finished = True  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    for process in children:
        process.terminate()
    for process in children:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # it ignores the signal
            process.kill()
