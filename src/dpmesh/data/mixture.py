"""Which people a training step sees: groups in equal parts, as a pure function of (seed, step, rank)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dpmesh.data.augment import AugmentConfig
from dpmesh.data.record import Batch, Sample, stack
from dpmesh.data.sources import Source
from dpmesh.errors import ConfigError

_ORDER, _SAMPLE = 11, 12
"""Streams of random numbers: of the order of a group, of one sample's augmentation."""


class Mixture:
    """Groups of sources, one after the other: with two, 3D and 2D sets are mixed 1:1 (datasets.md, 4.6).

    Sample g of the run (g counts over all steps and ranks) comes from group g mod G. A group is its sources end to
    end, without rebalancing; it is gone through in a new random order each time. (The originals repeat the
    smaller group and fill up at random, for 1:1 in expectation; here every batch of an even size is exactly so.)
    g does not depend on how many processes share a batch, so any number of them sees the same people.
    """

    def __init__(
        self, groups: Sequence[Sequence[Source]], seed: int, augment: AugmentConfig | None = None
    ) -> None:
        """augment: of all sources; None: pictures as they are and true joints. Raises ConfigError for no people."""
        if not groups or any(not sum(map(len, group)) for group in groups):
            raise ConfigError("a group of the mixture has no people", fix="Name at least one source in each.")
        self.groups = [list(group) for group in groups]
        self.seed, self.augment = seed, augment
        self._ends = [np.cumsum([len(source) for source in group]) for group in self.groups]
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}  # of each group: the turn, its order

    @property
    def epoch(self) -> int:
        """Samples in which every group has been gone through at least once: G times the largest group."""
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
