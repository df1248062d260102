"""Batches of a training: a pure function of seed, step and part, made in worker processes, resumable at any step."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dpmesh.body.files import population_body
from dpmesh.config import DPMeshConfig
from dpmesh.data.poses import PoseBank, SampledPoses, held_out, refuse_unmatched
from dpmesh.data.sample import Batch
from dpmesh.data.sources import Mixture, SampleSource, open_source
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.errors import ConfigError
from dpmesh.geometry.rotations import axis_angle, rotation_matrix
from dpmesh.train.config import Data, Settings, TrainingSource
from dpmesh.train.stages import AnyStage, ImageStage, KeypointStage, PriorStage, Stage, UncertaintyStage


class Part(NamedTuple):
    """Part `number` of `of` equal parts of the batch of step `step`.

    Processes and accumulation cut a batch into parts. Random numbers for people are drawn for the whole batch and then
    cut, so that the same people get the same numbers however the batch is cut.
    """

    seed: int
    step: int
    number: int = 0
    of: int = 1

    @property
    def joint_seed(self) -> int:
        """Seed of the whole batch."""
        return self.seed * 1_000_003 + self.step

    @property
    def own_seed(self) -> int:
        """Seed of this part alone, for draws that may depend on the cut."""
        return self.joint_seed * self.of + self.number

    def chance(self, *shape: int, salt: int = 0) -> Float[Tensor, "*s"]:
        """Uniform numbers in [0, 1) on the CPU; the last dimension is people. salt: another series for another use."""
        *rows, people = shape
        draw = torch.Generator().manual_seed(self.joint_seed + salt)
        return self.cut(torch.rand(*rows, people * self.of, generator=draw), people)

    def normal(self, *shape: int, salt: int = 0) -> Float[Tensor, "*s"]:
        """As `chance`, of the normal distribution; the first dimension is people."""
        people, *rest = shape
        draw = torch.Generator().manual_seed(self.joint_seed + salt)
        start = self.number * people
        return torch.randn(people * self.of, *rest, generator=draw)[start : start + people]

    def cut(self, values: Tensor, people: int) -> Tensor:
        """This part's columns."""
        return values[..., self.number * people : (self.number + 1) * people]


def parts_of(seed: int, steps: range, micro: int, rank: int, world: int) -> Iterator[Part]:
    """This process's parts of each step, one for each of the `micro` rounds of accumulation."""
    return (Part(seed, step, k * world + rank, micro * world) for step in steps for k in range(micro))


Tensors = dict[str, Tensor]
BLIND = "blind."
"""Prefix of the arrays of people without an image in a batch with images (keypoint_batch)."""


def pose_bank(motions: str) -> PoseBank:
    """The shipped poses: "train" without validation clips, "validation" these alone, "all" both; never test clips."""
    bank = PoseBank.load("train")
    held = held_out(bank.names)
    return bank if motions == "all" else bank.select(tuple(h == (motions == "validation") for h in held))


def prior_poses(stage: PriorStage, motions: str) -> PoseBank:
    """Training poses of the prior: the clips of its file without the held-out ones ("train"), or all ("all")."""
    bank, held = _prior_clips(stage)
    return bank if motions == "all" or not any(held) else bank.select(tuple(not h for h in held))


def held_out_poses(stage: PriorStage) -> PoseBank | None:
    """Validation poses of the prior: the clips that the stage holds out; None without any."""
    bank, held = _prior_clips(stage)
    return bank.select(held) if any(held) else None


def _prior_clips(stage: PriorStage) -> tuple[PoseBank, tuple[bool, ...]]:
    bank = PoseBank.load("train", Path(stage.poses) if stage.poses else None)
    refuse_unmatched(bank.names, stage.held_out, f"stage {stage.name}")
    held = held_out(bank.names, stage.held_out, stage.held_out_share)
    if all(held):
        raise ConfigError(
            "every clip of the pose file is held out",
            where=f"stage {stage.name}",
            fix="Name fewer in held_out.",
        )
    return bank, held


def training_people(data: Data, seed: int) -> SyntheticPeople:
    """The synthetic people of a training without a data set. Raises InputError for looks or backgrounds that cannot be
    used."""
    looks, backgrounds = (Path(name) if name else None for name in (data.looks, data.backgrounds))
    return SyntheticPeople(
        seed,
        _training_poses(data.motions),
        population_body(),
        looks,
        data.looks_share,
        backgrounds,
        data.detector_noise,
    )


@cache
def _training_poses(motions: str) -> SampledPoses:
    """Cached in a process: making its pool takes a second."""
    return SampledPoses(pose_bank(motions))


class Parts(Dataset[Batch]):
    """`self[part]` is that part of a batch, as arrays."""

    def __init__(self, stage: AnyStage, data: Data, seed: int) -> None:
        self.stage, self.data, self.seed = stage, data, seed
        self._make: Callable[[Part, int], Batch] | None = None

    def __getitem__(self, part: Part) -> Batch:
        if self._make is None:  # in the worker, once: the textures are not worth pickling
            torch.set_num_threads(1)
            self._make = self._maker()
        return self._make(part, self.stage.batch // part.of)

    def _maker(self) -> Callable[[Part, int], Batch]:
        """The function from a part and its size to its arrays."""
        stage, data = self.stage, self.data
        if isinstance(stage, PriorStage):
            return _poses(stage, prior_poses(stage, data.motions))
        if data.real:
            return _mixed(data, self.seed)
        people = training_people(data, self.seed)
        if data.overfit_people:
            return _repeated(people, data.overfit_people, with_images=not isinstance(stage, KeypointStage))
        return _synthetic(people, stage)


def _poses(stage: PriorStage, bank: PoseBank) -> Callable[[Part, int], Batch]:
    """ "pose" (axis-angle) and "unquantised" (1 where the latents are not quantised)."""

    def make(part: Part, count: int) -> Batch:
        rng = np.random.default_rng([part.seed, 11, part.number, part.step])
        pose = bank.sample(rng, count, noise=stage.noise)
        ids = [f"poses/{part.step}/{part.number}/{i}" for i in range(count)]
        return {"record_id": ids, "pose": pose, "unquantised": (rng.random(count) < stage.p_unquantised)}

    return make


def _synthetic(people: SyntheticPeople, stage: Stage) -> Callable[[Part, int], Batch]:
    def make(part: Part, count: int) -> Batch:
        rng = np.random.default_rng([part.seed, 7, part.number, part.step])
        if isinstance(stage, KeypointStage):
            return people.keypoints_only(rng, count)
        batch = people.batch(part.step * stage.batch + part.number * count, count)
        if isinstance(stage, ImageStage | UncertaintyStage) and stage.keypoint_batch:
            blind = people.keypoints_only(rng, stage.keypoint_batch // part.of)
            batch |= {BLIND + name: values for name, values in blind.items()}
        return batch

    return make


def _repeated(people: SyntheticPeople, many: int, *, with_images: bool) -> Callable[[Part, int], Batch]:
    """The first `many` people, again and again."""
    known = people.batch(0, many)
    if not with_images:
        known = {name: v for name, v in known.items() if name not in ("crop", "parts", "surface")}

    def make(part: Part, count: int) -> Batch:
        rows = (part.step * part.of * count + part.number * count + np.arange(count)) % many
        return {
            name: [values[i] for i in rows] if isinstance(values, list) else values[rows]
            for name, values in known.items()
        }

    return make


def _mixed(data: Data, seed: int) -> Callable[[Part, int], Batch]:
    """People of data sets, 3D and 2D 1:1."""
    mixture = mixture_of(data, seed)
    return lambda part, count: mixture(part.step, part.number, part.of, count)


def mixture_of(data: Data, seed: int) -> Mixture:
    """The 3D and the 2D group mixed; without a group that is empty."""
    groups = [[opened(source) for source in group] for group in (data.group3d, data.group2d) if group]
    return Mixture(groups, seed, data.augment)


@cache
def opened(source: TrainingSource) -> SampleSource:
    """The data set, cached in a process: reading its annotations takes long, and workers inherit them.

    Raises ConfigError for a test split, InputError for missing files.
    """
    return open_source(source.dataset, source.root, source.split, fits=source.fits)


def steps_of(stage: Stage, data: Data) -> tuple[int, int]:
    """The steps of the stage, and how many of the last ones have a tenth of the rate under the "step" schedule."""
    if stage.steps:
        return stage.steps, stage.decay_steps
    if not data.real:
        raise ConfigError(
            "synthetic people have no epochs", where=f"stage {stage.name}", fix="Give `steps` instead."
        )
    epoch = max(mixture_of(data, 0).epoch // stage.batch, 1)  # the last, incomplete batch is dropped
    return stage.epochs * epoch, stage.decay_steps * epoch


def refuse_uneven(stage: AnyStage, world: int) -> None:
    """Raise ConfigError where a batch cannot be cut into equal parts."""
    people = {"batch": stage.batch} | (
        {"keypoint_batch": stage.keypoint_batch} if isinstance(stage, ImageStage | UncertaintyStage) else {}
    )
    for name, count in people.items():
        if count % (world * stage.accumulate):
            raise ConfigError(
                f"{name}={count} cannot be shared by {world} processes × accumulate={stage.accumulate}",
                where=f"stage {stage.name}",
            )


def batches(
    stage: AnyStage, settings: Settings, steps: range, rank: int = 0, world: int = 1
) -> Iterator[tuple[Part, list[str], Tensors]]:
    """This process's parts of each step: the part, the people's record ids, the arrays as tensors."""
    refuse_uneven(stage, world)
    cut = (settings.seed, steps, stage.accumulate, rank, world)
    workers = settings.workers
    options: dict[str, Any] = {"prefetch_factor": 4, "persistent_workers": False} if workers else {}
    loader = DataLoader(
        Parts(stage, settings.data, settings.seed),
        batch_size=None,
        sampler=parts_of(*cut),
        num_workers=workers,
        collate_fn=_split_ids,  # pyright: ignore[reportArgumentType]  (a part is a batch already)
        **options,
    )
    for part, (ids, batch) in zip(parts_of(*cut), loader, strict=True):
        yield part, ids, batch


def _split_ids(batch: Batch) -> tuple[list[str], Tensors]:
    return list(batch["record_id"]), as_tensors(batch)


def as_tensors(batch: Batch) -> Tensors:
    """The crop stays uint8 (b, 256, 256, 3) until the model's device has it. record_id is left out."""
    return {
        name: torch.from_numpy(np.ascontiguousarray(array))
        for name, array in batch.items()
        if not name.endswith("record_id")
    }


_CAMERA_POINTS = ("joints3d", "fit_joints3d")


def to_model_camera(batch: Tensors, config: DPMeshConfig) -> Tensors:
    """The batch in the frame of the model's camera (DPMeshConfig.camera). Samples are made for the crop's camera.

    For a model of the full image's camera the focal length becomes the image's diagonal, and 3D joints and root
    orientation are rotated into that camera's frame. With shared_focal all people of the batch get the first one's
    focal length, as in the released code. `transl` is unchanged: no loss uses it, and a diagonal as focal length gives
    no position. Samples without an image (BLIND) are treated alike. Raises ConfigError for a model that reads joints
    off its maps: the surface's depths are known for the crop's camera alone.
    """
    if config.camera == "crop" and not config.shared_focal:
        return batch
    out = dict(batch)
    for prefix in ("", BLIND):
        if f"{prefix}focal" not in batch:
            continue
        if config.camera == "image":
            if config.reads:
                raise ConfigError(
                    "a model that reads joints off its maps is trained in the crop's camera", where="camera"
                )
            turn = batch[f"{prefix}to_image"]
            out[f"{prefix}focal"] = batch[f"{prefix}diagonal"]
            for name in (f"{prefix}{points}" for points in _CAMERA_POINTS):
                out[name] = batch[name] @ turn.mT
            out[f"{prefix}pose"] = _rotate_root(batch[f"{prefix}pose"], turn)
        if config.shared_focal:
            out[f"{prefix}focal"] = out[f"{prefix}focal"][:1].expand_as(out[f"{prefix}focal"])
    return out


def _rotate_root(pose: Tensor, turn: Tensor) -> Tensor:
    """Axis-angle (b, 24, 3) with the root rotated, in fp32 also under autocast."""
    with torch.autocast(pose.device.type, enabled=False):
        root = axis_angle(turn @ rotation_matrix(pose[:, 0]))
    return torch.cat([root[:, None], pose[:, 1:]], 1)
