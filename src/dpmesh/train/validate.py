"""How good the model is on synthetic people that it was not trained on: other motions and seeds, noisy keypoints,
occlusion. Data sets are scored by train/benchmarks.py."""

from dataclasses import replace
from functools import cache, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.data.augment import AugmentConfig
from dpmesh.data.poses import PoseBank
from dpmesh.data.sample import stack
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.metrics import mpjpe, mpve, pa_mpjpe
from dpmesh.model import DPMesh
from dpmesh.skeletons import H36M14_ROWS
from dpmesh.train.config import Data
from dpmesh.train.dataloader import Tensors, as_tensors, opened, pose_bank, training_people
from dpmesh.types import BodyParameters

SEED = 20_240_617
"""Seed of the held-out people; training seeds are small numbers."""

Figures = dict[str, NDArray[np.float64]]


class Recorded:
    """Held-out poses as they were recorded: training exchanges limbs between frames, a test must not."""

    def __init__(self, bank: PoseBank) -> None:
        self.bank = bank

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float32]:
        return self.bank.sample(rng, n, exchange=False, noise=0.0)


def held_out(count: int, seed: int = SEED) -> Tensors:
    """`count` rendered people whose motions belong to the test split: for benchmarks, never for a training."""
    return rendered(PoseBank.load("test"), count, seed)


def rendered(bank: PoseBank, count: int, seed: int = SEED) -> Tensors:
    """`count` people in poses of the bank as they were recorded."""
    return as_tensors(SyntheticPeople(seed, Recorded(bank), free_body()).batch(0, count))


@lru_cache(maxsize=1)
def validation_people(data: Data, count: int, seed: int) -> Tensors:
    """`count` people as training samples: of the validation splits that are named, or rendered ones whose motions are
    the pose bank's validation clips; the training's own where it is given only so many (Data.people, with `seed`).

    Their targets are training's. Of a data set they are no truth to be scored against: train/benchmarks.py has that."""
    if data.people:
        return as_tensors(training_people(data, seed).batch(0, min(data.people, count)))
    if not data.validation:
        return rendered(pose_bank("validation"), count)
    sources = [opened(source) for source in data.validation]
    share = -(-count // len(sources))
    rng = np.random.default_rng(SEED)
    samples = [
        source.sample(index, rng, AugmentConfig.still(focal=data.augment.focal))
        for source in sources
        for index in spread(len(source), share)
    ]
    return as_tensors(stack(samples))


def synthetic_people(data: Data, count: int, seed: int) -> Tensors | None:
    """Those of `validation_people` whose truth is known exactly: the synthetic ones. None where only data sets are
    named."""
    if data.people or not data.validation:
        return validation_people(data, count, seed)
    drawn = tuple(source for source in data.validation if source.dataset == "synthetic")
    share = -(-count // len(data.validation)) * len(drawn)
    return validation_people(replace(data, validation=drawn), share, seed) if drawn else None


def spread(length: int, count: int) -> list[int]:
    """At most `count` places, evenly over all."""
    return [int(i) for i in np.linspace(0, length - 1, min(count, length)).astype(int)]


@torch.inference_mode()
def predict(model: DPMesh, batch: Tensors, *, images: bool = True, chunk: int = 16) -> BodyParameters:
    """Parameters for every person; images=False gives the keypoint path alone (no picture is looked at)."""
    found: list[BodyParameters] = []
    device = next(model.parameters()).device
    for start in range(0, len(batch["focal"]), chunk):
        part = {name: value[start : start + chunk].to(device) for name, value in batch.items()}
        seen = None
        if images:
            crop = part["crop"].permute(0, 3, 1, 2).float() / 255
            seen = model.encode_image(crop, part["joints"], part["visible"])
        answer = model.regress(seen, part["joints"], part["visible"])
        found.append(model.decode_parameters(answer, part["focal"]))
    return BodyParameters(
        *(torch.cat([getattr(p, name) for p in found]) for name in ("rotations", "betas", "transl")),
        pose_latent=found[0].pose_latent[:0],
    )


@torch.inference_mode()
def figures(body: BodyModel, predicted: BodyParameters, batch: Tensors) -> Figures:
    """MPJPE, PA-MPJPE (14 Human3.6M joints, relative to its pelvis) and MPVE (relative to SMPL's) per synthetic person,
    mm. The truth is the free body, which the people were drawn with; for a model of another body there is no MPVE."""
    device = predicted.betas.device
    (a, a_mesh) = _meshes(body, predicted.betas, predicted.rotations)
    drawn = _drawn_with(body, device)
    (b, b_mesh) = _meshes(drawn, batch["betas"].to(device), rotation_matrix(batch["pose"].to(device)))
    rows = list(H36M14_ROWS)
    a, b = a - a[:, :1], b - b[:, :1]
    found = {"MPJPE": mpjpe(a[:, rows], b[:, rows]), "PA-MPJPE": pa_mpjpe(a[:, rows], b[:, rows])}
    return found | ({"MPVE": mpve(a_mesh, b_mesh)} if drawn is body else {})


def _drawn_with(body: BodyModel, device: torch.device) -> BodyModel:
    """The free body: `body` itself where it is that one."""
    free = _free_body()
    own, theirs = body.get_buffer("_template").cpu().float(), free.get_buffer("_template")
    same = own.shape == theirs.shape and torch.equal(own, theirs)
    return body if same else free.to(device)


@cache
def _free_body() -> BodyModel:
    return BodyModel(free_body()).eval()


def _meshes(body: BodyModel, betas: torch.Tensor, rotations: torch.Tensor) -> tuple[NDArray[np.float32], ...]:
    joints, meshes = [], []
    for start in range(0, len(betas), 32):
        out = body(betas[start : start + 32], rotations[start : start + 32])
        joints.append(body.regress(out.vertices, "h36m17"))
        meshes.append(out.vertices - out.joints30[:, :1])
    return torch.cat(joints).cpu().numpy(), torch.cat(meshes).cpu().numpy()
