"""Sources of samples by name: a set's own folder, packed shards, or the synthetic stream."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dpmesh.body.files import BodyArrays, population_body
from dpmesh.data.annotation import Annotation, damage
from dpmesh.data.augment import AugmentConfig
from dpmesh.data.crops import make_sample
from dpmesh.data.datasets import coco, crowdpose, h36m, muco, threedpw_training
from dpmesh.data.datasets.files import ReadRequest, first_folder
from dpmesh.data.fits import FitBodies
from dpmesh.data.images import decode_rgb, read_bytes
from dpmesh.data.poses import PoseBank, SampledPoses
from dpmesh.data.sample import Batch, Sample, stack
from dpmesh.data.shards import ShardSource, is_packed
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.errors import ConfigError, InputError


@dataclass(frozen=True)
class DataSet:
    """A data set: its folders below ROOT (3DCrowdNet's and JOTR's names), what it teaches, its splits."""

    name: str
    title: str
    folders: tuple[str, ...]
    measured: bool  # 3D joints, or keypoints alone
    splits: tuple[str, ...]
    read: Callable[[ReadRequest], Iterator[Annotation]]

    def folder(self, root: Path) -> Path:
        return first_folder(root, *self.folders)


SETS = {
    item.name: item
    for item in (
        DataSet("h36m", "Human3.6M", ("Human36M",), True, ("train",), h36m.read),
        DataSet("muco", "MuCo-3DHP", ("MuCo",), True, ("train",), muco.read),
        DataSet("coco", "MSCOCO", ("MSCOCO",), False, ("train", "validation"), coco.read),
        DataSet("crowdpose", "CrowdPose", ("CrowdPose",), False, ("train", "validation"), crowdpose.read),
        DataSet("3dpw", "3DPW", ("PW3D/data", "3DPW"), True, ("train", "validation"), threedpw_training.read),
    )
}
"""The sets by the names that configurations and `dpmesh data` use."""

Fits = Literal["smpl", "none"]
KINDS = (*SETS, "synthetic")
SPLITS = ("train", "validation")
FIT_ERR = ("all", "below", "above")

_log = logging.getLogger(__name__)


@runtime_checkable
class SampleSource(Protocol):
    """A numbered list of samples. `sample` is a pure function of its arguments and of the numbers drawn from rng."""

    @property
    def name(self) -> str: ...
    def __len__(self) -> int: ...
    def sample(
        self, index: int, rng: np.random.Generator, augment: AugmentConfig | None = None
    ) -> Sample: ...


class FolderSource:
    """People of a set's own files. `dropped` counts what the parser left out, by reason."""

    def __init__(self, name: str, people: list[Annotation], dropped: Counter[str]) -> None:
        self.name, self.people, self.dropped = name, people, dropped

    def __len__(self) -> int:
        return len(self.people)

    def sample(self, index: int, rng: np.random.Generator, augment: AugmentConfig | None = None) -> Sample:
        """Raises InputError, naming it, where the image is missing or damaged."""
        person = self.people[index]
        image = decode_rgb(read_bytes(person.image), str(person.image))
        return make_sample(rng, person, image, augment)


class SyntheticSource:
    """Generated people, numbered from 0, with their own images, noise and occluders: `rng` and `augment` are not used.

    The validation split has the motions of PoseBank's "test".
    """

    def __init__(self, seed: int, split: str, body: BodyArrays, length: int = 1_000_000) -> None:
        self.name, self._length = f"synthetic/{seed}", length
        train = split == "train"
        bank = PoseBank.load("train" if train else "test")
        self._people = SyntheticPeople(seed, SampledPoses(bank) if train else bank, body)

    def __len__(self) -> int:
        return self._length

    def sample(self, index: int, rng: np.random.Generator, augment: AugmentConfig | None = None) -> Sample:
        return self._people.sample(index)


def open_source(
    kind: str,
    root: str | Path = "",
    split: str = "train",
    *,
    fits: Fits = "smpl",
    bodies: FitBodies | None = None,
    fit_err: str = "all",
    benchmark_sequences: bool = False,
    seed: int = 0,
    length: int = 1_000_000,
) -> SampleSource:
    """A source of training or validation people; test splits are refused (ConfigError).

    kind: one of KINDS.  root: the folder that holds Human36M, MuCo, MSCOCO, CrowdPose and 3DPW, or one that
    `dpmesh data pack` has made.  fits: "smpl" needs the user's SMPL files, "none" takes joints alone; shards have
    theirs already.  bodies: instead of the imported SMPL files.  fit_err, benchmark_sequences: see
    data/datasets/files.py.  seed, length: of the synthetic people.
    """
    if kind not in KINDS:
        raise ConfigError(f"no data set is called {kind!r}", fix=f"There are: {', '.join(KINDS)}.")
    if split not in SPLITS:
        hint = " Test splits are for evaluation alone." if "test" in split else ""
        raise ConfigError(f"no training from the split {split!r}", fix=f"Take train or validation.{hint}")
    if kind == "synthetic":
        return SyntheticSource(seed, split, population_body(), length)
    if is_packed(folder := Path(root)):
        return ShardSource(folder, kind, split)
    return read_folder(kind, folder, split, fits, bodies, fit_err, benchmark_sequences)


def read_folder(
    kind: str,
    root: Path,
    split: str = "train",
    fits: Fits = "smpl",
    bodies: FitBodies | None = None,
    fit_err: str = "all",
    benchmark_sequences: bool = False,
) -> FolderSource:
    """A set from its own files; arguments and errors as `open_source`."""
    if kind not in SETS:
        raise ConfigError(f"{kind} has no folder to read", fix=f"Sets: {', '.join(SETS)}.")
    chosen = SETS[kind]
    if split not in chosen.splits:
        raise ConfigError(
            f"{chosen.title} has no {split} split here", fix=f"It has: {', '.join(chosen.splits)}."
        )
    if fit_err not in FIT_ERR:
        raise ConfigError(f"fit_err={fit_err!r} is none of {', '.join(FIT_ERR)}")
    if fits not in ("smpl", "none"):
        raise ConfigError(f"fits={fits!r} is neither 'smpl' nor 'none'")
    if fits == "smpl" and bodies is None:
        bodies = FitBodies.imported()
    request = ReadRequest(
        chosen.folder(root), split, bodies if fits == "smpl" else None, fit_err, benchmark_sequences
    )
    people = _sound(chosen.read(request), request)
    if not people:
        raise ConfigError(
            f"no person of {chosen.title} is left in {request.folder}", fix=_reasons(request.dropped)
        )
    _log.info("%s %s: %d people; %s", chosen.title, split, len(people), _reasons(request.dropped))
    return FolderSource(kind, people, +request.dropped)


def _sound(people: Iterator[Annotation], request: ReadRequest) -> list[Annotation]:
    """Those whose records can be used; the others are counted, the first of each kind is named. Raises InputError
    for annotations that are not what the adapter reads."""
    kept: list[Annotation] = []
    try:
        for person in people:
            if wrong := damage(person):
                if not request.dropped[wrong]:
                    _log.warning("%s and perhaps others are left out: %s", person.record_id, wrong)
                request.dropped[wrong] += 1
            else:
                kept.append(person)
    except MemoryError:
        raise InputError("the annotations do not fit into memory", where=str(request.folder)) from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        raise InputError(
            f"an annotation after {len(kept)} people lacks a field or has a wrong one ({line})",
            where=str(request.folder),
            fix="docs/guide/data.md says which files are read.",
        ) from None
    return kept


def _reasons(dropped: Counter[str]) -> str:
    return "; ".join(f"{reason}: {count}" for reason, count in dropped.items() if count) or "nothing left out"


# Which people a training step gets: groups in equal parts, as a pure function of (seed, step, rank).


_ORDER, _SAMPLE = 11, 12
"""Streams of random numbers: of the order of a group, of one sample's augmentation."""


class Mixture:
    """Groups of sources, one after the other: with two, 3D and 2D sets are mixed 1:1.

    Sample g of the run (g counts over all steps and ranks) comes from group g mod G. A group is its sources end to
    end, without rebalancing, in a new random order each time. (The originals repeat the
    smaller group and fill up at random, for 1:1 in expectation; here every batch of an even size is exactly so.)
    g does not depend on how many processes share a batch, so any number of them gets the same people.
    """

    def __init__(
        self, groups: Sequence[Sequence[SampleSource]], seed: int, augment: AugmentConfig | None = None
    ) -> None:
        """augment: of all sources; None: images as they are and true joints. Raises ConfigError for no people."""
        if not groups or any(not sum(map(len, group)) for group in groups):
            raise ConfigError("a group of the mixture has no people", fix="Name at least one source in each.")
        self.groups = [list(group) for group in groups]
        self.seed, self.augment = seed, augment
        self._ends = [np.cumsum([len(source) for source in group]) for group in self.groups]
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}  # of each group: the turn, its order

    @property
    def epoch(self) -> int:
        """Samples that contain every group at least once: G times the largest group."""
        return len(self.groups) * max(int(ends[-1]) for ends in self._ends)

    def place(self, g: int) -> tuple[int, int, int]:
        """Group, source of the group and index in the source of sample g of the run."""
        group, position = g % len(self.groups), g // len(self.groups)
        ends = self._ends[group]
        turn, at = divmod(position, int(ends[-1]))
        number = int(self._order(group, turn)[at])
        source = int(np.searchsorted(ends, number, side="right"))
        return group, source, number - (int(ends[source - 1]) if source else 0)

    def __call__(self, step: int, rank: int = 0, world: int = 1, share: int = 1) -> Batch:
        """This rank's `share` samples of step `step`; the ranks' shares are the step's batch, end to end."""
        if not 0 <= rank < world or step < 0 or share < 1:
            raise ConfigError(f"no share {share} of rank {rank} of {world} at step {step}")
        first = (step * world + rank) * share
        samples: list[Sample] = []
        for g in range(first, first + share):
            group, source, index = self.place(g)
            rng = np.random.default_rng([self.seed, _SAMPLE, g])
            samples.append(self.groups[group][source].sample(index, rng, self.augment))
        return stack(samples)

    def _order(self, group: int, turn: int) -> NDArray[np.int64]:
        """The order of a group in its turn-th passage; the last one is kept."""
        kept = self._orders.get(group)
        if kept is None or kept[0] != turn:
            rng = np.random.default_rng([self.seed, _ORDER, group, turn])
            kept = self._orders[group] = (turn, rng.permutation(int(self._ends[group][-1])))
        return kept[1]
