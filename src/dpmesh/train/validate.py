"""Validation: on held-out synthetic people, and on data sets under a versioned protocol of dpmesh.evaluate.

A data set's truth is the gendered body or the measured joints, as in the evaluation. The neutral body of mean shape,
3DPW's target in training, is no truth.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpmesh.body.files import free_body, population_body
from dpmesh.body.layer import BodyModel
from dpmesh.data.augment import AugmentConfig
from dpmesh.data.poses import PoseBank
from dpmesh.data.sample import stack
from dpmesh.data.shards import is_packed
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.errors import ConfigError
from dpmesh.evaluate import report, results
from dpmesh.evaluate.interfaces import EvaluationSource, Persons
from dpmesh.evaluate.packed import open_packed
from dpmesh.evaluate.protocol import Protocol
from dpmesh.evaluate.registry import open_set
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.inference.predictor import MeshModel
from dpmesh.metrics import mpjpe, mpve, pa_mpjpe
from dpmesh.model import DPMesh
from dpmesh.skeletons import H36M14_ROWS
from dpmesh.train.config import Data, Settings, TrainingSource
from dpmesh.train.dataloader import Tensors, as_tensors, opened, pose_bank, training_people
from dpmesh.train.stages import PretrainStage, PriorStage, TeacherStage
from dpmesh.types import BodyParameters

SEED = 20_240_617
"""Seed of the held-out people; training seeds are small numbers."""

Figures = dict[str, NDArray[np.float64]]


class Recorded:
    """Held-out poses as recorded: training exchanges limbs between frames, a test must not."""

    def __init__(self, bank: PoseBank) -> None:
        self.bank = bank

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float32]:
        return self.bank.sample(rng, n, exchange=False, noise=0.0)


def held_out(count: int, seed: int = SEED) -> Tensors:
    """`count` rendered people whose motions belong to the test split: for benchmarks, never for a training."""
    return rendered(PoseBank.load("test"), count, seed)


def rendered(bank: PoseBank, count: int, seed: int = SEED) -> Tensors:
    """`count` people in poses of the bank as they were recorded."""
    return as_tensors(SyntheticPeople(seed, Recorded(bank), population_body()).batch(0, count))


@lru_cache(maxsize=1)
def validation_people(data: Data, count: int, seed: int) -> Tensors:
    """`count` people as training samples: of the validation splits that are named, or rendered ones whose motions are
    the pose bank's validation clips; the training's own with Data.overfit_people (and `seed`).

    Their targets are training's. Those of a data set are no truth to be scored against (`benchmarks`)."""
    if data.overfit_people:
        return as_tensors(training_people(data, seed).batch(0, min(data.overfit_people, count)))
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
    if data.overfit_people or not data.validation:
        return validation_people(data, count, seed)
    drawn = tuple(source for source in data.validation if source.dataset == "synthetic")
    share = -(-count // len(data.validation)) * len(drawn)
    return validation_people(replace(data, validation=drawn), share, seed) if drawn else None


def spread(length: int, count: int) -> list[int]:
    """At most `count` indices, evenly spaced over all."""
    return [int(i) for i in np.linspace(0, length - 1, min(count, length)).astype(int)]


@torch.inference_mode()
def predict(model: DPMesh, batch: Tensors, *, images: bool = True, chunk: int = 16) -> BodyParameters:
    """Parameters for every person; images=False: the keypoint path alone, without an image."""
    parts: list[BodyParameters] = []
    device = next(model.parameters()).device
    for start in range(0, len(batch["focal"]), chunk):
        part = {name: value[start : start + chunk].to(device) for name, value in batch.items()}
        image_features = None
        if images:
            crop = part["crop"].permute(0, 3, 1, 2).float() / 255
            image_features = model.encode_image(crop, part["joints"], part["visible"])
        prediction = model.regress(image_features, part["joints"], part["visible"])
        parts.append(model.decode_parameters(prediction, part["focal"]))
    return BodyParameters(
        *(torch.cat([getattr(p, name) for p in parts]) for name in ("rotations", "betas", "transl")),
        pose_latent=parts[0].pose_latent[:0],
    )


@torch.inference_mode()
def figures(body: BodyModel, predicted: BodyParameters, batch: Tensors) -> Figures:
    """MPJPE, PA-MPJPE (14 Human3.6M joints, relative to its pelvis) and MPVE (relative to SMPL's) per synthetic person,
    mm. The truth is the free body in their pose and shape; a model of another body has no MPVE."""
    device = predicted.betas.device
    (a, a_mesh) = _meshes(body, predicted.betas, predicted.rotations)
    drawn = _drawn_with(body, device)
    (b, b_mesh) = _meshes(drawn, batch["betas"].to(device), rotation_matrix(batch["pose"].to(device)))
    rows = list(H36M14_ROWS)
    a, b = a - a[:, :1], b - b[:, :1]
    errors = {"MPJPE": mpjpe(a[:, rows], b[:, rows]), "PA-MPJPE": pa_mpjpe(a[:, rows], b[:, rows])}
    return errors | ({"MPVE": mpve(a_mesh, b_mesh)} if drawn is body else {})


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


_TOGETHER = 16
"""People in one forward pass."""

Row = dict[str, Any]
"""A line of validation.csv."""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Some persons of a data set under a protocol of dpmesh.evaluate, evenly drawn from all of them."""

    protocol: Protocol
    source: EvaluationSource
    chosen: Sequence[int]
    _kept: list[tuple[Sequence[int], Persons]] = field(default_factory=list[tuple[Sequence[int], Persons]])

    def batches(self) -> Sequence[tuple[Sequence[int], Persons]]:
        """Indices and persons; the images are read once and cached."""
        if not self._kept:
            for start in range(0, len(self.chosen), _TOGETHER):
                indices = self.chosen[start : start + _TOGETHER]
                self._kept.append((indices, self.source.persons(indices)))
        return self._kept

    @torch.inference_mode()
    def figures(self, model: MeshModel, device: torch.device) -> Row:
        """The mean of each measure in millimetres (those that the protocol and the model's body have), how many people
        and failures; the protocol and its hash."""
        results.require_joints(model)
        measure = self.protocol.measure
        parts = [
            results.score(
                measure,
                indices,
                persons,
                results.predicted(
                    measure, model, model(results.inputs_of(persons, model.camera, device)), persons
                ),
            )
            for indices, persons in self.batches()
        ]
        totals = report.figures(measure, results.concatenate(parts))
        means = {name: m["mean"] for name, m in totals["mean"].items() if m["mean"] is not None}
        return {
            "people": len(self.chosen),
            **{name: round(value, 2) for name, value in means.items()},
            "failures": totals["failures"],
            "protocol": self.protocol.full_name,
            "hash": self.protocol.hash,
        }


@lru_cache(maxsize=2)
def benchmarks(data: Data, count: int, *, annotated: bool = False) -> tuple[Benchmark, ...]:
    """The data sets of Data.validation with `count` people in all. annotated: the ground-truth 2D joints are the input,
    as of a teacher. Raises DPMeshError where files, bodies or regressors are missing."""
    if data.overfit_people:
        return ()
    share = -(-count // max(len(data.validation), 1))
    sets = [_opened(source, annotated) for source in data.validation if source.dataset != "synthetic"]
    return tuple(Benchmark(protocol, source, spread(len(source), share)) for protocol, source in sets)


def _opened(source: TrainingSource, annotated: bool) -> tuple[Protocol, EvaluationSource]:
    root = Path(source.root)
    if is_packed(root):
        people = open_packed(root / f"{source.dataset}-{source.split}", annotated=annotated)
        return people.protocol, people
    if source.dataset != "3dpw":
        raise ConfigError(
            f"{source.dataset} has no {source.split} split with a true pose",
            where="data.validation",
            fix="Name 3dpw, a folder that dpmesh data pack made, or nothing: synthetic people then.",
        )
    if not os.path.isdir(root):
        raise ConfigError(
            f"this folder of 3DPW's {source.split} people does not exist",
            where=str(root),
            fix="Name the folder of 3DPW (docs/guide/data.md) in data.validation, then dpmesh train CONFIG --check.",
        )
    return open_set("3dpw-validation@annotated" if annotated else "3dpw-validation", root)


def prepare_validation(settings: Settings) -> None:
    """Open the validation sets of the stages, in every process, so that none waits for one that failed."""
    if not settings.validate_every:
        return
    for stage in settings.stages:
        if not isinstance(stage, PriorStage | PretrainStage):
            benchmarks(settings.data, settings.validation_people, annotated=isinstance(stage, TeacherStage))
