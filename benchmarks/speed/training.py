"""A student step of `paper` at full size: memory on a GPU, counted; time and memory on this CPU, measured.

    python -m benchmarks.speed.training [--step] [--precision bf16-mixed] [--json benchmarks/results/training.json]

Memory = 4 B × (weights + teacher's own + trained × (1 gradient + 2 of Adam)) + batch × activations + what is fixed.
weights: the student's, all of them; the teacher's frozen ones are the same memory. Activations are what autograd keeps
between forward and backward, counted in a pass over tensors without numbers (torch's FakeTensorMode) of one and two
people: the difference is a person's, the rest (weights in bf16, ...) fixed. The teacher's own are gone before, and
what a kernel needs for an instant is not counted: leave 10 % and half a GiB for it.
"""

import argparse
import resource
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import report_result
from dpmesh.body.files import population_body
from dpmesh.checkpoint import uninitialised
from dpmesh.config import PAPER
from dpmesh.data.poses import PoseBank
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.model import DPMesh
from dpmesh.profiling import build_on_meta
from dpmesh.train.config import Settings
from dpmesh.train.context import TrainingContext
from dpmesh.train.dataloader import Part, Tensors, as_tensors
from dpmesh.train.distributed import make_fabric, recompute_activations
from dpmesh.train.objectives.mesh import MeshObjective
from dpmesh.train.stage_run import StageRun
from dpmesh.train.stages import StudentStage, TeacherStage

GIB = 2**30
COMMON: dict[str, Any] = {"name": "s", "steps": 1, "batch": 1, "learning_rate": 1e-4, "warmup_steps": 0}


def settings(precision: str, **more: Any) -> Settings:
    return Settings(
        model="paper",
        stages=(StudentStage(**COMMON),),
        precision=precision,
        weight_decay=1e-6,
        **more,  # type: ignore[arg-type]
    )


def people(count: int) -> Tensors:
    """Synthetic ones; where they come from does not change a step."""
    return as_tensors(SyntheticPeople(1, PoseBank.load("train"), population_body()).batch(0, count))


def pretended(fake: FakeTensorMode, model: DPMesh) -> DPMesh:
    """The model of the meta device as if on a CPU, still without numbers."""
    for part in model.modules():
        for own in (part._parameters, part._buffers):
            for name, value in own.items():
                if value is not None:
                    like: torch.Tensor = FakeTensor(fake, value.detach(), torch.device("cpu"))
                    trained = isinstance(value, nn.Parameter)
                    own[name] = nn.Parameter(like, value.requires_grad) if trained else like
    return model


def kept(count: int, precision: str, checkpointing: bool) -> int:
    """Bytes that autograd keeps for `count` people besides the weights themselves."""
    batch, model = people(count), build_on_meta(PAPER)
    with (
        FakeTensorMode(allow_non_fake_inputs=True) as fake,
        mock.patch(
            "dpmesh.train.objectives.mesh.attention_kernels", lambda _device: nullcontext()
        ),  # as on a GPU
    ):
        model = pretended(fake, model)
        objective = MeshObjective(model, TeacherStage(**COMMON), settings(precision))
        if checkpointing:
            recompute_activations(objective)
        objective.train()
        own = {p.untyped_storage()._cdata for p in objective.parameters()}
        own |= {b.untyped_storage()._cdata for b in objective.buffers()}
        sizes: dict[int, int] = {}
        alive: list[Any] = []

        def keep(x: torch.Tensor) -> torch.Tensor:
            storage = x.untyped_storage()
            if storage._cdata not in own:
                sizes[storage._cdata] = storage.nbytes()
                alive.append(x)
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            alive.append(objective({k: fake.from_tensor(v) for k, v in batch.items()}, Part(1, 0)))
    return sum(sizes.values())


def counted() -> dict[str, Any]:
    """Memory by the formula of the module's docstring."""
    model = build_on_meta(PAPER)
    weights = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    report: dict[str, Any] = {"weights": weights, "trained": trained, "teachers_own": trained}
    states = 4 * (weights + trained + 3 * trained)
    report["states_gib"] = round(states / GIB, 2)
    for precision in ("32-true", "bf16-mixed"):
        for checkpointing in (False, True):
            one, two = (kept(n, precision, checkpointing) for n in (1, 2))
            person, fixed = two - one, 2 * one - two
            name = precision + (", checkpointing" if checkpointing else "")
            report[name] = {
                "person_gib": round(person / GIB, 3),
                "fixed_gib": round(fixed / GIB, 3),
                **{f"batch_{n}_gib": round((states + fixed + n * person) / GIB, 1) for n in (1, 4, 16)},
            }
    return report


def step_gflop() -> dict[str, float]:
    """Work of a training step for one person, forward and backward, on the meta device. A student's teacher takes the
    student's latent where both have one frozen encoder."""
    model = build_on_meta(PAPER)
    with torch.device("meta"):
        crop, joints, visible = torch.rand(1, 3, 256, 256), torch.rand(1, 30, 2), torch.ones(1, 30)
        focal, latent = torch.rand(1), torch.rand(1, 4, 32, 32)
    with FlopCounterMode(display=False) as counter:
        regressed = model.regress(model.encode_image(crop, joints, visible), joints, visible)
        parameters = model.decode_parameters(regressed, focal)
        body = model.body.joints30_only(parameters.betas, parameters.rotations, parameters.transl)
        (body.sum() + regressed.joints_img.sum() + parameters.rotations.sum()).backward()
        teacher = counter.get_total_flops()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.requires_grad_(False)
        model.regressor.build_memory(model.encode_image(crop, joints, visible, latent).fused)
        watched = counter.get_total_flops()
    student = teacher + watched
    return {"teacher": round(teacher / 1e9, 1), "student": round(student / 1e9, 1)}


def step(precision: str) -> dict[str, Any]:
    """One training step of one person from a fresh start: wall and CPU seconds of its parts, peak memory."""
    torch.set_num_threads(1)
    training = settings(precision)
    torch.manual_seed(0)
    model = DPMesh(PAPER)
    model.pose_prior.codebook.codes.normal_()  # type: ignore[union-attr]
    with uninitialised():  # what is frozen will be the student's own memory
        teacher = DPMesh(PAPER)
    for name, p in model.named_parameters():
        holder, _, leaf = name.rpartition(".")
        part = teacher.get_submodule(holder)
        if p.requires_grad:
            part.get_parameter(leaf).data.copy_(p.data)
        else:
            setattr(part, leaf, p)
    teacher.pose_prior.load_state_dict(model.pose_prior.state_dict())
    stage = training.stages[0]
    assert isinstance(stage, StudentStage)
    run = StageRun(
        make_fabric(training),
        MeshObjective(model, stage, training, teacher),
        TrainingContext.resolve(training),
        0,
    )
    batch = people(1)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    spent: dict[str, float] = {}

    def timed(name: str, work: Any) -> Any:
        began = time.process_time()
        result = work()
        spent[name] = round(time.process_time() - began, 2)
        return result

    loss, _ = timed("forward, teacher and student", lambda: run.module(batch, Part(1, 0)))
    timed("backward", lambda: run.fabric.backward(loss))
    timed("clipping and AdamW", lambda: (run.clip_gradients(), run.optimizer_step()))
    return {
        "precision": precision,
        "batch": 1,
        "threads": 1,
        "cpu_s": spent,
        "cpu_s_total": round(sum(spent.values()), 2),
        "loss": round(loss.item(), 4),
        "loaded_gib": round(loaded, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--step", action="store_true", help="also measure a step (13 GiB, minutes)")
    parser.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed"))
    parser.add_argument("--json", type=Path, help="write the result there")
    options = parser.parse_args()
    result: dict[str, Any] = {"torch": torch.__version__}
    result["counted"] = counted()
    result["step_gflop"] = step_gflop()
    if options.step:
        result["step"] = step(options.precision)
    report_result(result, options.json)


if __name__ == "__main__":
    main()
