"""Training of the VQ-VAE pose prior, and how well it gives back poses that it has not seen.

python -m dpmesh.train.prior configs/prior.toml          (goes on from a checkpoint in `out`)
"""

import csv
import dataclasses
import json
import logging
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy.typing import NDArray
from torch import Tensor

from dpmesh.body.files import BodyArrays, free_body
from dpmesh.data.poses import PoseBank
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.pose_prior.files import save_prior
from dpmesh.pose_prior.rotations import rotation_matrix
from dpmesh.pose_prior.vqvae import PoseVQVAE, PoseVQVAEConfig
from dpmesh.skeletons import SMPL_PARENTS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] (Python 3.10 only)


@dataclass(frozen=True, kw_only=True)
class PriorTraining:
    """One run. Weights multiply: squared chordal distance of the rotations, metres of the joints, commitment.

    smooth: share of the poses that are decoded from latents that were not quantised, so that the decoder also
    knows what lies between the codes (decode_latent with mode="soft" asks it).
    """

    model: PoseVQVAEConfig = field(default_factory=PoseVQVAEConfig)
    out: Path = Path("runs/prior")
    poses: Path | None = None
    steps: int = 4000
    batch: int = 512
    lr: float = 2e-3
    warmup: int = 100
    weight_decay: float = 1e-4
    joints_weight: float = 10.0
    commitment_weight: float = 0.25
    smooth: float = 0.1
    noise: float = 0.06
    seed: int = 0
    log_every: int = 50
    save_every: int = 500

    @classmethod
    def read(cls, path: Path) -> "PriorTraining":
        """From TOML: the fields at the top, the model's in [model]; raises ConfigError for an unknown one."""
        try:
            values: dict[str, Any] = tomllib.loads(path.read_text())
            model = PoseVQVAEConfig(**values.pop("model", {}))
            paths: dict[str, Any] = {k: Path(values.pop(k)) for k in ("out", "poses") if k in values}
            return cls(model=model, **paths, **values)
        except (OSError, TypeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(str(error), where=str(path)) from error

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, then half a cosine down to 1 %."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def rest_joints(body: BodyArrays | None = None) -> Float32[Tensor, "24 3"]:
    """The 24 joints of the mean shape in T-pose, metres (the free body's without an argument)."""
    arrays = body or free_body()
    return torch.as_tensor(arrays.J_regressor @ arrays.v_template, dtype=torch.float32)


def forward_kinematics(
    rotations: Float[Tensor, "b 23 3 3"], rest: Float[Tensor, "24 3"]
) -> Float[Tensor, "b 24 3"]:
    """Joints relative to the pelvis, metres, of a body that stands unrotated (body frame)."""
    turned: list[Tensor] = [torch.eye(3, dtype=rest.dtype, device=rest.device).expand(len(rotations), 3, 3)]
    places: list[Tensor] = [torch.zeros_like(rest[:1]).expand(len(rotations), 3)]
    for joint in range(1, 24):
        parent = SMPL_PARENTS[joint]
        turned.append(turned[parent] @ rotations[:, joint - 1])
        places.append(places[parent] + turned[parent] @ (rest[joint] - rest[parent]))
    return torch.stack(places, 1)


def body_rotations(poses: Float32[NDArray[np.float32], "n 24 3"]) -> Float32[Tensor, "n 23 3 3"]:
    """Matrices of joints 1..23 of axis-angle poses."""
    vectors = torch.from_numpy(np.ascontiguousarray(poses[:, 1:]))
    return rotation_matrix(vectors)


@dataclass(frozen=True)
class PriorScore:
    """Reconstruction with the nearest codes: mean of frames and 24 joints, relative to the pelvis."""

    mpjpe_mm: float
    worst_tenth_mm: float
    code_use: float
    frames: int


@torch.no_grad()
def evaluate_prior(model: PoseVQVAE, bank: PoseBank, rest: Float32[Tensor, "24 3"]) -> PriorScore:
    """Give every pose of the bank back through the codes. `code_use`: share of the codebook that was hit."""
    was_training = model.training
    model.eval()
    errors, used = [], torch.zeros(model.config.codes, dtype=torch.bool)
    for rotations in body_rotations(bank.poses).split(512):
        out = model(rotations[:, : model.config.joints])
        used[out.indices.flatten()] = True
        moved = forward_kinematics(out.rotations, rest) - forward_kinematics(rotations, rest)
        errors.append(moved.norm(dim=-1).mean(-1) * 1000)
    model.train(was_training)
    per_frame = torch.cat(errors).sort().values
    worst = per_frame[int(0.9 * len(per_frame)) :].mean()
    return PriorScore(float(per_frame.mean()), float(worst), float(used.float().mean()), len(per_frame))


def prior_loss(
    model: PoseVQVAE,
    poses: Float32[NDArray[np.float32], "n 24 3"],
    rest: Float32[Tensor, "24 3"],
    config: PriorTraining,
    rng: np.random.Generator,
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """The loss of one batch and its terms."""
    target = body_rotations(poses)
    latents = model.encode(target[:, : model.config.joints])
    codes, indices, commitment = model.quantise(latents)
    smooth = torch.from_numpy(rng.random(len(poses)) < config.smooth)
    rotations = model.decode(torch.where(smooth[:, None, None], latents, codes))
    turned = (rotations - target).square().sum((-1, -2)).mean()
    error = (forward_kinematics(rotations, rest) - forward_kinematics(target, rest)).norm(dim=-1).mean()
    loss = turned + config.joints_weight * error + config.commitment_weight * commitment
    use = indices.unique().numel() / model.config.codes
    terms = {"rotations": turned, "mpjpe_mm": error * 1000, "commitment": commitment}
    return loss, {"loss": loss.item(), **{k: v.item() for k, v in terms.items()}, "batch_use": use}


def train_prior(
    config: PriorTraining,
    rest: Float32[Tensor, "24 3"] | None = None,
    report: Callable[[dict[str, float]], None] = lambda _: None,
) -> PoseVQVAE:
    """Train, or go on from the checkpoint in `config.out`; at the end the prior lies there.

    log.csv gets a line every `log_every` steps, `report` the same. A run that was stopped and started again
    gives the same numbers as one that was not.
    """
    bank, test = PoseBank.load("train", config.poses), PoseBank.load("test", config.poses)
    rest = rest_joints() if rest is None else rest
    rng = np.random.default_rng(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = PoseVQVAE(config.model).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    config.out.mkdir(parents=True, exist_ok=True)
    first = _resume(config.out, model, optimiser, rng)
    for step in range(first, config.steps):
        for group in optimiser.param_groups:
            group["lr"] = config.rate(step)
        poses = bank.sample(rng, config.batch, noise=config.noise)
        loss, terms = prior_loss(model, poses, rest, config, rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % config.log_every == 0:
            row = {"step": float(step + 1), "lr": config.rate(step), **terms}
            _log(config.out / "log.csv", row)
            report(row)
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            _save(config.out, step + 1, model, optimiser, rng)
            score = evaluate_prior(model, test, rest)
            report({"step": float(step + 1), **{k: float(v) for k, v in dataclasses.asdict(score).items()}})
    score = dataclasses.asdict(evaluate_prior(model, test, rest))
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()}
    save_prior(model, config.out, {"training": settings, "clips": len(bank.names), "test": score})
    return model.eval()


def _log(path: Path, row: dict[str, float]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if fresh:
            writer.writeheader()
        writer.writerow({k: f"{v:.6g}" for k, v in row.items()})


def _save(
    folder: Path, step: int, model: PoseVQVAE, optimiser: torch.optim.Optimizer, rng: np.random.Generator
) -> None:
    """One file, so that weights, optimiser and random state always belong together."""
    state = {"step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save({**state, "rng": json.dumps(rng.bit_generator.state)}, folder / "checkpoint.pt.part")
    os.replace(folder / "checkpoint.pt.part", folder / "checkpoint.pt")


def _resume(
    folder: Path, model: PoseVQVAE, optimiser: torch.optim.Optimizer, rng: np.random.Generator
) -> int:
    """Steps done so far; raises WeightsError for a checkpoint of another model."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        rng.bit_generator.state = json.loads(state["rng"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise WeightsError(
            "the checkpoint does not fit this run", where=str(path), fix="Choose another `out`, or remove it."
        ) from error
    return int(state["step"])


def main() -> None:
    """Train as a TOML file says and print what is logged."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)

    def report(row: dict[str, float]) -> None:
        logging.info("  ".join(f"{k} {v:.4g}" for k, v in row.items()))

    train_prior(PriorTraining.read(Path(sys.argv[1])), report=report)


if __name__ == "__main__":
    main()
