"""A folder of records (what `dpmesh data pack` writes) as an evaluation's source, with a protocol of its own.

Nobody published how to measure on such a folder, so the protocol is made from what lies in it: the hash covers the
shards' checksums. A person whose 3D joints are not known is left out and counted; one whose record has a number that
is not finite stays, and is counted as unusable (score.score).
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
from dpmesh.evaluate.protocol import OWN_JOINTS, Keypoints, Measure, Protocol, Selection, Stored, Truth
from dpmesh.geometry import CROP
from dpmesh.geometry.camera import crop_rotation, intrinsics
from dpmesh.geometry.crop import Crop
from dpmesh.skeletons import H36M14_ROWS, H36M17, JOINTS30

UNSEEN = "keypoints: none given"
PREFIX = "packed:"
"""Before the set's name in that of the protocol: no packed set bears the name of a frozen protocol."""
_SEED = 5
_MISSING = 1000
"""A manifest that names so many more shards than there are files is damaged."""
_AT = list(H36M17.indices_in(JOINTS30))
_COLLARS = [JOINTS30.index("L_Thorax"), JOINTS30.index("R_Thorax")]
"""Only SMPL's skeleton has them: where most people's are measured, all of a set's joints are SMPL's."""


class PackedPeople:
    """See records.Source. Measured joints are the truth; where nobody has any, the fitted mesh's."""

    def __init__(self, shards: ShardSource, name: str, *, annotated: bool = False) -> None:
        """annotated: the ground-truth 2D joints are the input, as of a teacher; another protocol. Raises InputError
        for a torn shard, a person twice, and a set that says nothing in 3D."""
        if shards.skipped:
            torn, reason = next(iter(shards.skipped.items()))
            raise InputError(f"this shard is torn: {reason}", where=torn, fix="Run dpmesh data pack again.")
        self._shards, self._annotated = shards, annotated
        told = [
            (p.record_id, _known(p, True), _known(p, False), not not_finite(p))
            for p in map(self._person, range(len(shards)))
        ]
        if len({record_id for record_id, *_ in told}) < len(told):
            raise InputError("two persons have one name", where=name, fix="Give every record_id once.")
        sound = np.array([sound for *_, sound in told])
        measured = any(by_sensor.any() for _, by_sensor, _, sound in told if sound)
        known = np.stack([by_sensor if measured else by_fit for _, by_sensor, by_fit, _ in told])
        rows = _rows(known[sound])
        if 0 not in rows or len(rows) < 4:
            raise InputError(
                "too few joints of these people are known in 3D (the pelvis and three more are needed)",
                where=name,
                fix="Pack a set with 3D joints or fits (docs/data.md).",
            )
        whole = known[:, [_AT[row] for row in rows]].all(1)
        own = not measured or bool(known[sound][:, _COLLARS].all(1).mean() > 0.5)
        self._measured, self._chosen = measured, [int(i) for i in np.flatnonzero(whole | ~sound)]
        if not (whole & sound).any():
            raise InputError("nobody's joints are all known in 3D", where=name, fix="See docs/data.md.")
        content = hashlib.sha256("\n".join(shards.sums.values()).encode("utf-8", "replace")).hexdigest()
        self.protocol = Protocol(
            name=f"{PREFIX}{name}",
            edition="annotated" if annotated else "paper",
            title=f"the packed people of {name}",
            selection=Selection(
                dataset=f"packed {name}, content {content}", rule="measured" if measured else "fitted"
            ),
            keypoints=Keypoints(source="annotated" if annotated else "recorded or noise", threshold=0.0),
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
            "3D joints not known, or not all": len(told) - len(self._chosen),
            "left out when packed": shards.unpacked,
        }
        self.census = Census(
            found=len(self._chosen),
            layout=f"shards of dpmesh data pack, {len(told)} people",
            left_out={reason: count for reason, count in left.items() if count},
            files=shards.sums,
        )
        self.faces: Integer[np.ndarray, "f 3"] | None = None

    def __len__(self) -> int:
        return len(self._chosen)

    def persons(self, indices: Sequence[int]) -> Persons:
        at = [self._chosen[i] for i in indices]
        records = [self._person(i) for i in at]
        sound = np.array([not not_finite(record) for record in records])
        people = [r if ok else _stand_in(r) for r, ok in zip(records, sound, strict=True)]
        samples = [
            self._sample(i, person)
            if ok
            else make_sample(_rng(person), person, _BLACK, AugmentConfig.still())
            for i, person, ok in zip(at, people, sound, strict=True)
        ]
        given = [self._given(sample) for sample in samples]
        places = np.stack([p.joints3d if self._measured else p.fit_joints3d for p in people])[:, _AT]
        known = np.stack([_known(p, self._measured) for p in people])[:, _AT]
        sight = np.stack([np.where(s.joints2d_valid > 0, s.joint_visible, np.nan)[_AT] for s in samples])
        return Persons(
            ids=tuple(p.record_id for p in people),
            sequences=tuple("/".join(p.record_id.split("/")[:-1][:2]) for p in people),  # SET/SEQUENCE/...
            crops=np.stack([s.crop for s in samples]),
            joints=np.stack([joints for joints, _ in given]),
            visible=np.stack([visible for _, visible in given]),
            focal_crop=np.array([s.focal for s in samples], np.float32),
            focal_image=np.array([np.sqrt(p.K[0, 0] * p.K[1, 1]) for p in people], np.float32),
            turn=np.stack([crop_rotation(p.K, Crop.around(p.box, Stored().box)) for p in people]),
            truth_joints=np.where(sound[:, None, None], places, np.nan).astype(np.float64),
            measured=known.astype(np.float64),
            truth_vertices=None,
            truth_pelvis=None,
            seen=sight.astype(np.float64),
            fallbacks=+Counter(
                {UNSEEN: sum(ok and not visible.any() for (_, visible), ok in zip(given, sound, strict=True))}
            ),
        )

    def _person(self, index: int) -> Annotation:
        with _damage(f"{self._shards.name}, person {index}"):
            found = self._shards.person(index, finite=False)
            if not_finite(found):
                return found
            if found.fit_valid not in (0, 1) or found.betas_valid not in (0, 1):
                raise ValueError("fit_valid or betas_valid is neither 0 nor 1")
            return found

    def _sample(self, index: int, person: Annotation) -> Sample:
        with _damage(person.record_id):
            return self._shards.sample(index, _rng(person), AugmentConfig.still())

    def _given(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """(30, 2) crop px and (30,) 1 where the model is given the joint."""
        if not self._annotated:
            return sample.joints, sample.visible
        inside = ((sample.joints2d >= 0) & (sample.joints2d < CROP)).all(1)
        sure = (sample.joints2d_valid > 0) & inside
        return sample.joints2d * sure[:, None], sure.astype(np.float32)


@contextmanager
def _damage(where: str) -> Generator[None]:
    """A record whose fields are not what `dpmesh data pack` writes is named in one line."""
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
        told = " ".join(str(error).split())[:80] or type(error).__name__
        raise InputError(
            f"this record is not what dpmesh data pack writes ({told})",
            where=where,
            fix="Pack the set again.",
        ) from error


def open_packed(path: Path, *, annotated: bool = False) -> PackedPeople:
    """path: a folder with one packed set, or FOLDER/SET-SPLIT for one of several. Raises ConfigError, InputError."""
    folder, wanted = (path, "") if is_packed(path) else (path.parent, path.name)
    if not is_packed(folder):
        raise InputError(
            f"this is no folder of records: no {MANIFEST} is there",
            where=str(path),
            fix="Make one: dpmesh data pack ROOT OUT.",
        )
    sets = packed_sets(folder)
    names = sorted(sets)
    if not wanted and len(names) != 1:
        raise ConfigError(
            "several sets are packed in this folder" if names else "no set is packed in this folder",
            where=str(path),
            fix=f"Give one: {', '.join(str(path / name) for name in names)}" if names else "Pack one.",
        )
    name = wanted or names[0]
    kind, _, split = name.rpartition("-")
    with _damage(str(folder / MANIFEST)):
        if not sets.get(name, 0) <= _MISSING + len(list(folder.glob("*.tar"))):
            raise InputError(
                f"{name} has far fewer shards than the {sets[name]:,} that are named",
                where=str(folder / MANIFEST),
                fix="Run dpmesh data pack again.",
            )
        shards = ShardSource(folder, kind, split)
    return PackedPeople(shards, name, annotated=annotated)


def _rng(person: Annotation) -> np.random.Generator:
    """Of the noise on a person's keypoints: the same wherever the person stands in the set."""
    return np.random.default_rng([_SEED, zlib.crc32(person.record_id.encode())])


def _stand_in(record: Annotation) -> Annotation:
    """In place of a record that has a number which is not finite: what the model is given instead, for nothing."""
    whole = np.array([0.0, 0.0, CROP - 1, CROP - 1])
    return Annotation(
        record_id=record.record_id, image=record.image, size=(CROP, CROP), box=whole,
        K=intrinsics(float(CROP), (CROP, CROP)), joints2d=np.zeros((30, 2), np.float32),
        joints2d_valid=np.zeros(30, np.float32),
    )  # fmt: skip


_BLACK = np.zeros((CROP, CROP, 3), np.uint8)


def _known(person: Annotation, measured: bool) -> np.ndarray:
    """(30,) which joints are known in 3D."""
    return person.joints3d_valid > 0 if measured else np.full(30, person.fit_valid > 0)


def _rows(known: np.ndarray) -> list[int]:
    """Of Human3.6M's joints those that most of the people have of whom anything is known."""
    some = known[known.any(1)]
    return [row for row, at in enumerate(_AT) if len(some) and some[:, at].mean() > 0.5]
