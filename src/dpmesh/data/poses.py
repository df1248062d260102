"""The bank of captured body poses, its split, and the augmentation that stretches 0.7 hours of motion.

Body frame: y up, the subject's left +x, facing +z. Axis-angle in radians, 24 SMPL joints; joint 0 turns the
body in a y-up world, the others are relative to their parent. Hands (22, 23) are identity: not captured.
"""

import hashlib
import lzma
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int
from numpy.typing import NDArray

from dpmesh.assets import shipped
from dpmesh.errors import AssetError, ConfigError
from dpmesh.geometry.rotations import axis_angle, rotation_matrix
from dpmesh.io import open_regular
from dpmesh.pose_prior.files import load_prior
from dpmesh.pose_prior.vqvae import PoseVQVAE
from dpmesh.skeletons import SMPL24, SMPL_PARENTS

Split = Literal["train", "test"]

TEST_SUBJECT = ("amc:03_", "amass:CMU/03/")
"""CMU subject 03 (uneven terrain), in either archive: never used in training."""

TEST_ACTIONS = (
    "expmap:train_soccer_", "expmap:test_soccer_", "expmap:test_washwindow_",
    "expmap:train_directing_traffic_", "expmap:test_directing_traffic_",
    "daz:indian_08", "daz:martial_06", "daz:salsa_05", "daz:salsa_20",
)  # fmt: skip
"""Whole actions held out, by the beginning of a clip's name. Salsa 05 and 20 are one take's two dancers."""

VALIDATION_CLIPS = ("amc:02_", "daz:indian_13", "daz:martial_08")
"""Prefixes of the names of clips of the shipped train split that are kept for validation."""

HELD_OUT_SHARE = 0.05
"""Share of the clips kept for validation where no name has a wanted prefix."""

UNREADABLE = (
    OSError, KeyError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What numpy raises on an .npz that is damaged, cut off or something else."""

# Where a part of the body is taken from another frame: probability, and the joint it starts at. In the order
# of the tree, so that an arm may come from a third frame after the whole upper body came from a second one.
EXCHANGES = (
    (0.25, "Torso"),
    (0.25, "L_Thorax"),
    (0.25, "R_Thorax"),
    (0.25, "Neck"),
    (0.2, "L_Hip"),
    (0.2, "R_Hip"),
)
NOISE = 0.06  # radians per axis, one sigma
_FLIP = np.array(SMPL24.flip)
_MIRROR = np.array([1.0, -1.0, -1.0], np.float32)


def is_test(name: str) -> bool:
    """Whether the clip of this name belongs to the test split."""
    return name.startswith(TEST_SUBJECT + TEST_ACTIONS)


def held_out(
    names: Sequence[str], prefixes: Sequence[str] = VALIDATION_CLIPS, share: float = HELD_OUT_SHARE
) -> tuple[bool, ...]:
    """For each clip whether it is kept for validation and left out of training.

    Clips whose names begin with one of `prefixes`. Of a file in which no name does: `share` of the clips by a hash of
    the name, which does not change when others come or go; one at least, and never all. A share of 0, or a single
    clip: none. Raises ConfigError for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise ConfigError(f"held_out_share={share} is not in [0, 1)", where="the prior's stage")
    if any(chosen := [name.startswith(tuple(prefixes)) for name in names]):
        return tuple(chosen)
    places = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64 for name in names]
    if not share or not names or min(places) == max(places):
        return (False,) * len(names)
    limit = min(max(share, min(places)), max(places))
    return tuple(place <= limit if limit == min(places) else place < limit for place in places)


def refuse_unmatched(names: Sequence[str], prefixes: Sequence[str], where: str) -> None:
    """Raise ConfigError where no name begins with one of the prefixes; the default ones may be missing."""
    for prefix in prefixes:
        if prefix not in VALIDATION_CLIPS and not any(name.startswith(prefix) for name in names):
            raise ConfigError(
                f"held_out names clips that begin with {prefix!r}, and the pose file has none",
                where=where,
                fix=f"Names begin as {names[0][:80]!r} does." if names else "",
            )


def mirror(poses: Float32[NDArray[np.float32], "n 24 3"]) -> Float32[NDArray[np.float32], "n 24 3"]:
    """The mirrored poses: left and right exchanged, rotations about y and z negated."""
    return poses[:, _FLIP] * _MIRROR


def descendants(joint: int) -> Bool[NDArray[np.bool_], "24"]:
    """Mask over the SMPL joints of `joint` and everything that hangs on it."""
    mask = np.zeros(24, bool)
    mask[joint] = True
    for child in range(joint + 1, 24):
        mask[child] |= mask[SMPL_PARENTS[child]]
    return mask


_COLUMNS = [np.flatnonzero(descendants(SMPL24.index(joint))) for _, joint in EXCHANGES]


def exchange_sources(rng: np.random.Generator, n: int, frames: int) -> Int[NDArray[np.int64], "n 24"]:
    """For each of n bodies and each joint the frame (< frames) that its rotation is taken from.

    A whole subtree always comes from one frame: limbs are exchanged at the joints of EXCHANGES.
    """
    sources = np.repeat(rng.integers(frames, size=(n, 1)), 24, axis=1)
    for (probability, _), columns in zip(EXCHANGES, _COLUMNS, strict=True):
        rows = np.flatnonzero(rng.random(n) < probability)
        if not len(rows):  # of a single body mostly
            continue
        sources[rows[:, None], columns] = rng.integers(frames, size=(len(rows), 1))
    return sources


@dataclass(frozen=True)
class PoseBank:
    """Poses (N, 24, 3), axis-angle radians, clip after clip: `names[i]` has `lens[i]` frames."""

    poses: Float32[NDArray[np.float32], "n 24 3"]
    names: tuple[str, ...]
    lens: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.poses)

    @classmethod
    def read(cls, path: Path) -> "PoseBank":
        """Every clip of a pose file (`poses` N×24×3, `names`, `lens`); raises AssetError for another."""
        try:
            with open_regular(path, AssetError) as opened, np.load(opened, allow_pickle=False) as file:
                poses, names, lens = (np.asarray(file[key]) for key in ("poses", "names", "lens"))
        except (*UNREADABLE, AttributeError, TypeError) as error:  # the last two: an .npy, no .npz
            raise AssetError(
                f"not a pose file ({error})",
                where=str(path),
                fix="Build it with tools/assets/build_poses.py.",
            ) from error
        if (
            names.ndim != 1
            or lens.shape != names.shape
            or lens.dtype.kind not in "iu"
            or poses.dtype.kind != "f"
        ):
            raise AssetError("not a pose file (its arrays are of other kinds)", where=str(path))
        if poses.shape[1:] != (24, 3) or (lens < 0).any() or int(lens.sum()) != len(poses):
            raise AssetError(f"poses {poses.shape} do not fit {len(names)} clips", where=str(path))
        if not np.isfinite(poses).all():
            raise AssetError("some of its angles are no numbers", where=str(path))
        return cls(
            np.ascontiguousarray(poses, np.float32), tuple(str(n) for n in names), tuple(int(n) for n in lens)
        )

    @classmethod
    def load(cls, split: Split, path: Path | None = None) -> "PoseBank":
        """The shipped bank (or the pose file `path`), without the other split's clips."""
        bank = cls.read(path or shipped("poses/poses.npz"))
        return bank.select(tuple(is_test(name) == (split == "test") for name in bank.names))

    def select(self, keep: tuple[bool, ...]) -> "PoseBank":
        """The clips for which `keep` is true; raises ConfigError where none is."""
        if not any(keep):
            raise ConfigError("no clip of the pose bank is left", fix="Check the names in the pose file.")
        frames = np.repeat(np.array(keep), self.lens)
        kept = [(n, length) for n, length, k in zip(self.names, self.lens, keep, strict=True) if k]
        return PoseBank(self.poses[frames], tuple(n for n, _ in kept), tuple(length for _, length in kept))

    @cached_property
    def both_sides(self) -> Float32[NDArray[np.float32], "m 24 3"]:
        """The poses and their mirror images, 2N×24×3."""
        return np.concatenate((self.poses, mirror(self.poses)))

    @cached_property
    def limits(self) -> Float32[NDArray[np.float32], "2 24 3"]:
        """Lower and upper limit of each joint and axis: the range that the recorded people used (99.9 %)."""
        return np.quantile(self.both_sides, (0.0005, 0.9995), axis=0).astype(np.float32)

    def sample(
        self, rng: np.random.Generator, n: int, exchange: bool = True, noise: float = NOISE
    ) -> Float32[NDArray[np.float32], "n 24 3"]:
        """n new poses: mirrored half of the time, limbs and torso from other frames, noise within the limits.

        The noise (radians per axis, sigma) moves no joint across its limits; a pose recorded beyond stays.
        The pelvis gets the noise without limits, joints that never move in the bank get none.
        """
        bank = self.both_sides
        sources = exchange_sources(rng, n, len(bank)) if exchange else rng.integers(len(bank), size=(n, 1))
        poses = bank[sources, np.arange(24)]
        return self.noisy(rng, poses, noise) if noise > 0 else poses

    def noisy(
        self, rng: np.random.Generator, poses: Float32[NDArray[np.float32], "n 24 3"], noise: float = NOISE
    ) -> Float32[NDArray[np.float32], "n 24 3"]:
        """Poses with `sample`'s noise on them."""
        low, high = self.limits
        moved = poses + rng.standard_normal(poses.shape, np.float32) * np.float32(noise)
        bounded = np.minimum(np.maximum(moved, np.minimum(low, poses)), np.maximum(high, poses))
        bounded[:, 0] = moved[:, 0]
        return bounded


# Poses that the pose prior makes: the tokens of two recorded people, mixed and decoded.
#
# Exchanged limbs (above) are recorded limbs on another trunk. The prior's tokens have no such seams: each depends on
# the whole body, and the poses decoded from a mixture are plausible.


SHARE = 0.2
"""Share of such poses. The prior was trained on the bank alone, so most people keep recorded poses."""

POOL = 1024
"""Poses that are decoded when the first is asked for: about a second."""


@dataclass(frozen=True)
class SampledPoses:
    """A bank of which a share of the samples is drawn from the prior (the shipped one). See scene.PoseSource."""

    bank: PoseBank
    prior: PoseVQVAE = field(default_factory=load_prior)
    share: float = SHARE

    def sample(self, rng: np.random.Generator, n: int) -> Float32[NDArray[np.float32], "n 24 3"]:
        """The bank's samples; those of the prior keep their place's turn of the body (joint 0)."""
        poses = self.bank.sample(rng, n)
        rows = np.flatnonzero(rng.random(n) < self.share)
        if len(rows):
            mixed = poses[rows]
            mixed[:, 1:] = self.pool[rng.integers(len(self.pool), size=len(rows))]
            poses[rows, 1:] = self.bank.noisy(rng, mixed)[:, 1:]
        return poses

    @cached_property
    def pool(self) -> Float32[NDArray[np.float32], "m 23 3"]:
        """POOL poses of `drawn`, always the same ones of a bank."""
        return self.drawn(np.random.default_rng(POOL), POOL)

    @torch.inference_mode()
    def drawn(self, rng: np.random.Generator, n: int) -> Float32[NDArray[np.float32], "n 23 3"]:
        """n poses of joints 1..23, axis-angle, within the bank's limits. Of each token's code one of two recorded
        people is the donor, the first one for anything from none to all of them."""
        prior, frames = self.prior, self.bank.both_sides
        parents = frames[rng.integers(len(frames), size=(2, n)), 1 : prior.config.joints + 1]
        kind = prior.codebook.codes.dtype
        rotations = rotation_matrix(torch.as_tensor(parents).flatten(0, 1)).to(kind)
        codes, *_ = prior.quantise(prior.encode(rotations))
        first, second = codes[:n], codes[n:]
        donor = torch.as_tensor(rng.random((n, prior.config.tokens)) < rng.random((n, 1)))
        vectors = axis_angle(prior.decode(torch.where(donor[..., None], first, second))).numpy()
        low, high = self.bank.limits[:, 1:]
        return np.minimum(np.maximum(vectors, low), high, dtype=np.float32)
