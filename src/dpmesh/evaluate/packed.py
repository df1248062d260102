"""A folder of shards (written by `dpmesh data pack`) as an evaluation source, with a protocol of its own.

The protocol is derived from the folder's content, and its hash covers the shards' checksums. People without known 3D
joints are left out and counted. People whose record has a number that is not finite are kept and counted as unusable
(results.score).
"""

import hashlib
import zlib
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Integer

from dpmesh.data.annotation import Annotation, not_finite
from dpmesh.data.augment import AugmentConfig
from dpmesh.data.crops import make_sample
from dpmesh.data.sample import Sample
from dpmesh.data.shards import MANIFEST, ShardSource, is_packed, packed_sets
from dpmesh.errors import ConfigError, InputError
from dpmesh.evaluate.interfaces import Census, Persons
from dpmesh.evaluate.protocol import OWN_JOINTS, KeypointRule, Measure, Protocol, Selection, Stored, Truth
from dpmesh.geometry import CROP
from dpmesh.geometry.camera import crop_rotation, intrinsics
from dpmesh.geometry.crop import Crop
from dpmesh.skeletons import H36M14_ROWS, H36M17, JOINTS30

NO_KEYPOINTS = "keypoints: none given"
PREFIX = "packed:"
"""Prefix of the protocol's name, so that no packed set has the name of a published protocol."""
_SEED = 5
_MISSING = 1000
"""A manifest that names this many more shards than there are files is damaged."""
_H36M_IN_30 = list(H36M17.indices_in(JOINTS30))
_COLLARS = [JOINTS30.index("L_Thorax"), JOINTS30.index("R_Thorax")]
"""Only SMPL's skeleton has them. If most people have them, the set's joints are taken for SMPL's."""


class PackedSource:
    """An EvaluationSource of packed people. The truth is measured joints, or a fit's if none are measured."""

    def __init__(self, shards: ShardSource, name: str, *, annotated: bool = False) -> None:
        """annotated: ground-truth 2D joints are the input, as for a teacher; this is another protocol. Raises
        InputError for a torn shard, a duplicated person, and a set without 3D joints."""
        if shards.skipped:
            torn, reason = next(iter(shards.skipped.items()))
            raise InputError(f"this shard is torn: {reason}", where=torn, fix="Run dpmesh data pack again.")
        self._shards, self._annotated = shards, annotated
        people = [
            (p.record_id, _known(p, True), _known(p, False), not not_finite(p))
            for p in map(self._person, range(len(shards)))
        ]
        if len({record_id for record_id, *_ in people}) < len(people):
            raise InputError("two people have the same name", where=name, fix="Make every record_id unique.")
        sound = np.array([sound for *_, sound in people])
        measured = any(by_sensor.any() for _, by_sensor, _, sound in people if sound)
        known = np.stack([by_sensor if measured else by_fit for _, by_sensor, by_fit, _ in people])
        rows = _measured_rows(known[sound])
        if 0 not in rows or len(rows) < 4:
            raise InputError(
                "too few joints of these people are known in 3D (the pelvis and three more are needed)",
                where=name,
                fix="Pack a set with 3D joints or fits (docs/guide/data.md).",
            )
        whole = known[:, [_H36M_IN_30[row] for row in rows]].all(1)
        own = not measured or bool(known[sound][:, _COLLARS].all(1).mean() > 0.5)
        self._measured, self._chosen = measured, [int(i) for i in np.flatnonzero(whole | ~sound)]
        if not (whole & sound).any():
            raise InputError("no person has all joints in 3D", where=name, fix="See docs/guide/data.md.")
        content = hashlib.sha256("\n".join(shards.sums.values()).encode("utf-8", "replace")).hexdigest()
        self.protocol = Protocol(
            name=f"{PREFIX}{name}",
            edition="annotated" if annotated else "paper",
            title=f"the packed people of {name}",
            selection=Selection(
                dataset=f"packed {name}, content {content}", rule="measured" if measured else "fitted"
            ),
            keypoints=KeypointRule(source="annotated" if annotated else "recorded or noise", threshold=0.0),
            crop=Stored(),
            focal="given",
            truth=Truth(gender="none"),
            measure=Measure(
                metrics=("MPJPE", "PA-MPJPE"),
                regressor=OWN_JOINTS if own else Measure().regressor,
                rows=tuple(row for row in H36M14_ROWS if row in rows),
            ),
            notes=(
                "the truth is what the records say: " + ("measured joints" if measured else "a fit's joints"),
            ),
        )
        left = {
            "3D joints not known, or not all": len(people) - len(self._chosen),
            "left out when packed": shards.unpacked,
        }
        self.census = Census(
            persons=len(self._chosen),
            layout=f"shards of dpmesh data pack, {len(people)} people",
            left_out={reason: count for reason, count in left.items() if count},
            files=shards.sums,
        )
        self.faces: Integer[np.ndarray, "f 3"] | None = None

    def __len__(self) -> int:
        return len(self._chosen)

    def persons(self, indices: Sequence[int]) -> Persons:
        shard_indices = [self._chosen[i] for i in indices]
        records = [self._person(i) for i in shard_indices]
        sound = np.array([not not_finite(record) for record in records])
        people = [r if ok else _placeholder(r) for r, ok in zip(records, sound, strict=True)]
        samples = [
            self._sample(i, person)
            if ok
            else make_sample(_rng(person), person, _BLACK, AugmentConfig.still())
            for i, person, ok in zip(shard_indices, people, sound, strict=True)
        ]
        inputs = [self._input_joints(sample) for sample in samples]
        joints3d = np.stack([p.joints3d if self._measured else p.fit_joints3d for p in people])
        known = np.stack([_known(p, self._measured) for p in people])
        visibility = np.stack([np.where(s.joints2d_valid > 0, s.joint_visible, np.nan) for s in samples])
        return Persons(
            ids=tuple(p.record_id for p in people),
            sequences=tuple("/".join(p.record_id.split("/")[:-1][:2]) for p in people),  # SET/SEQUENCE/...
            crops=np.stack([s.crop for s in samples]),
            joints=np.stack([joints for joints, _ in inputs]),
            visible=np.stack([visible for _, visible in inputs]),
            focal_crop=np.array([s.focal for s in samples], np.float32),
            focal_image=np.array([np.sqrt(p.K[0, 0] * p.K[1, 1]) for p in people], np.float32),
            turn=np.stack([crop_rotation(p.K, Crop.around(p.box, Stored().box)) for p in people]),
            truth_joints=np.where(sound[:, None, None], joints3d[:, _H36M_IN_30], np.nan).astype(np.float64),
            measured=known[:, _H36M_IN_30].astype(np.float64),
            truth_vertices=None,
            truth_pelvis=None,
            joint_visible=visibility[:, _H36M_IN_30].astype(np.float64),
            fallbacks=+Counter(
                {
                    NO_KEYPOINTS: sum(
                        ok and not visible.any() for (_, visible), ok in zip(inputs, sound, strict=True)
                    )
                }
            ),
        )

    def _person(self, index: int) -> Annotation:
        with _damage(f"{self._shards.name}, person {index}"):
            person = self._shards.person(index, finite=False)
            if not_finite(person):
                return person
            if person.fit_valid not in (0, 1) or person.betas_valid not in (0, 1):
                raise ValueError("fit_valid or betas_valid is neither 0 nor 1")
            return person

    def _sample(self, index: int, person: Annotation) -> Sample:
        with _damage(person.record_id):
            return self._shards.sample(index, _rng(person), AugmentConfig.still())

    def _input_joints(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """(30, 2) crop px and (30,) 1 where visible."""
        if not self._annotated:
            return sample.joints, sample.visible
        inside = ((sample.joints2d >= 0) & (sample.joints2d < CROP)).all(1)
        visible = (sample.joints2d_valid > 0) & inside
        return sample.joints2d * visible[:, None], visible.astype(np.float32)


@contextmanager
def _damage(where: str) -> Generator[None]:
    """Turns errors about the fields of a record into an InputError that names `where`."""
    try:
        yield
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        OSError,
        OverflowError,
        cv2.error,
    ) as error:
        cause = " ".join(str(error).split())[:80] or type(error).__name__
        raise InputError(
            f"this record is not what dpmesh data pack writes ({cause})",
            where=where,
            fix="Pack the set again.",
        ) from error


def open_packed(path: Path, *, annotated: bool = False) -> PackedSource:
    """path: a folder with one packed set, or FOLDER/SET-SPLIT for one of several. Raises ConfigError, InputError."""
    folder, wanted = (path, "") if is_packed(path) else (path.parent, path.name)
    if not is_packed(folder):
        raise InputError(
            f"not a folder of packed people: it has no {MANIFEST}",
            where=str(path),
            fix="Write one: dpmesh data pack ROOT OUT.",
        )
    sets = packed_sets(folder)
    names = sorted(sets)
    if not wanted and len(names) != 1:
        raise ConfigError(
            "several sets are packed in this folder" if names else "no set is packed in this folder",
            where=str(path),
            fix=f"Name one: {', '.join(str(path / name) for name in names)}" if names else "Pack one.",
        )
    name = wanted or names[0]
    kind, _, split = name.rpartition("-")
    with _damage(str(folder / MANIFEST)):
        if not sets.get(name, 0) <= _MISSING + len(list(folder.glob("*.tar"))):
            raise InputError(
                f"{name} has far fewer shards than the manifest's {sets[name]:,}",
                where=str(folder / MANIFEST),
                fix="Run dpmesh data pack again.",
            )
        shards = ShardSource(folder, kind, split)
    return PackedSource(shards, name, annotated=annotated)


def _rng(person: Annotation) -> np.random.Generator:
    """For the noise on a person's keypoints: it does not depend on the person's place in the set."""
    return np.random.default_rng([_SEED, zlib.crc32(person.record_id.encode())])


def _placeholder(record: Annotation) -> Annotation:
    """A valid input in place of a record with a number that is not finite; its prediction is not used."""
    whole = np.array([0.0, 0.0, CROP - 1, CROP - 1])
    return Annotation(
        record_id=record.record_id, image=record.image, size=(CROP, CROP), box=whole,
        K=intrinsics(float(CROP), (CROP, CROP)), joints2d=np.zeros((30, 2), np.float32),
        joints2d_valid=np.zeros(30, np.float32),
    )  # fmt: skip


_BLACK = np.zeros((CROP, CROP, 3), np.uint8)


def _known(person: Annotation, measured: bool) -> np.ndarray:
    """(30,) joints known in 3D, from measurements or from the fit."""
    return person.joints3d_valid > 0 if measured else np.full(30, person.fit_valid > 0)


def _measured_rows(known: np.ndarray) -> list[int]:
    """Rows of Human3.6M's joints that are known for most of the people with any known joint."""
    some = known[known.any(1)]
    return [row for row, i in enumerate(_H36M_IN_30) if len(some) and some[:, i].mean() > 0.5]
