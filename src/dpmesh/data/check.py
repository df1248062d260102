"""Checks of a data set: counts, missing files, suspicious units and sides, a contact sheet with drawn joints."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from dpmesh.data.annotation import Annotation
from dpmesh.data.augment import AugmentConfig
from dpmesh.data.crops import make_sample
from dpmesh.data.images import decode_rgb, read_bytes
from dpmesh.data.sample import Sample
from dpmesh.data.shards import ShardSource, index_of, packed_sets, torn
from dpmesh.data.sources import SampleSource
from dpmesh.decode import image_size
from dpmesh.errors import InputError
from dpmesh.geometry import CROP
from dpmesh.geometry.camera import project
from dpmesh.skeletons import JOINTS30

SHEET = 12
"""People on a contact sheet, four in a row."""

_NAMED = 5  # examples of each finding


@dataclass
class Finding:
    """How many people a finding is about, and the first of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class CheckResult:
    """people, images, with 3D joints, with a fit; missing images; findings by what is suspicious."""

    people: int
    images: int
    measured: int
    fitted: int
    findings: dict[str, Finding]


def check_people(people: Sequence[Annotation], images: bool = True) -> CheckResult:
    """Check every annotation and, with `images`, the header of every image."""
    findings: dict[str, Finding] = {}
    sizes: dict[Path, tuple[int, int] | None] = {}
    for person in people:
        if images and person.image not in sizes:
            sizes[person.image] = _size(person.image)
        problems = [*_suspicions(person), *_image_problems(person, sizes.get(person.image, person.size))]
        for problem in problems:
            finding = findings.setdefault(problem, Finding())
            finding.count += 1
            if len(finding.examples) < _NAMED:
                finding.examples.append(person.record_id)
    return CheckResult(
        len(people), len({p.image for p in people}), sum(bool(p.joints3d_valid.any()) for p in people),
        sum(bool(p.fit_valid) for p in people), findings,
    )  # fmt: skip


def _size(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except InputError:
        return None


def _image_problems(person: Annotation, size: tuple[int, int] | None) -> list[str]:
    if size is None:
        return ["image missing or damaged"]
    return [] if size == person.size else ["image of another size than the annotation says"]


def _suspicions(person: Annotation) -> list[str]:
    """What cannot be true of a person in metres in the camera frame."""
    out: list[str] = []
    side = float((person.box[2:] - person.box[:2]).max())
    for what, joints, valid in (
        ("3D joints", person.joints3d, person.joints3d_valid > 0),
        ("the fit", person.fit_joints3d, np.full(30, person.fit_valid > 0)),
    ):
        if not valid.any():
            continue
        shown = joints[valid]
        extent = float(np.ptp(shown, axis=0).max())
        if extent > 20:
            out.append(f"{what} in millimetres?")
        elif extent < 0.02:
            out.append(f"{what} in kilometres, or all in one place?")
        elif shown[:, 2].min() <= 0:
            out.append(f"{what} behind the camera: world for camera frame?")
        else:
            both = valid & (person.joints2d_valid > 0)
            pixels, other = project(joints, person.K)[both], person.joints2d[both]
            off = float(np.linalg.norm(pixels - other, axis=1).mean()) / side
            mirrored = project(joints, person.K)[list(JOINTS30.flip)][both]
            if off > 0.06 and float(np.linalg.norm(mirrored - other, axis=1).mean()) / side < 0.6 * off:
                out.append(f"{what} fit the 2D joints better with left and right exchanged")
            elif off > 0.25:
                out.append(f"{what} do not project onto the 2D joints: another frame, camera or unit?")
    shown = person.joints2d[person.joints2d_valid > 0]
    inside = (shown >= person.box[:2] - 0.25 * side) & (shown <= person.box[2:] + 0.25 * side)
    if len(shown) and inside.all(1).mean() < 0.5:
        out.append("most 2D joints lie outside the box")
    return out


def check_shards(root: Path) -> tuple[dict[str, int], dict[str, str]]:
    """People in whole shards by set; the torn shards and the damaged people with what is wrong. All bytes are read."""
    counts: Counter[str] = Counter()
    bad: dict[str, str] = {}
    for name, shards in packed_sets(root).items():
        counts[name] = whole = 0
        for number in range(shards):
            shard = root / f"{name}-{number:05d}.tar"
            if reason := torn(shard, index_of(shard), whole=True):
                bad[shard.name] = reason
            else:
                whole += 1
        if whole:
            source = ShardSource(root, *name.rpartition("-")[::2])
            for number in range(len(source)):
                try:
                    source.person(number)
                    counts[name] += 1
                except InputError as error:
                    bad[error.where] = error.what
    return dict(counts), bad


def folder_sheet(people: Sequence[Annotation]) -> UInt8[np.ndarray, "h w 3"] | None:
    """Contact sheet of people spread over the set; None where no image can be read."""
    samples: list[Sample] = []
    for k in _spread(len(people)):
        with suppress(InputError):
            image = decode_rgb(read_bytes(people[k].image), str(people[k].image))
            samples.append(make_sample(np.random.default_rng(k), people[k], image))
    return draw_sheet(samples)


def source_sheet(
    source: SampleSource, augment: AugmentConfig | None = None
) -> UInt8[np.ndarray, "h w 3"] | None:
    """Contact sheet of any source; augment: as in training."""
    samples: list[Sample] = []
    for k in _spread(len(source)):
        with suppress(InputError):
            samples.append(source.sample(k, np.random.default_rng(k), augment))
    return draw_sheet(samples)


def _spread(count: int) -> list[int]:
    return [int(k) for k in np.unique(np.linspace(0, count - 1, min(SHEET, count)).astype(int))]


def draw_sheet(samples: Sequence[Sample]) -> UInt8[np.ndarray, "h w 3"] | None:
    """Crops in rows of four: left limbs orange, right ones blue, others white; rings: the fit; crosses: the input."""
    if not samples:
        return None
    tiles = [_tile(sample) for sample in samples]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 4)
    return np.concatenate([np.concatenate(tiles[i : i + 4], 1) for i in range(0, len(tiles), 4)])


_LEFT, _RIGHT, _MIDDLE = (255, 140, 20), (40, 140, 255), (255, 255, 255)


def _colour(joint: int) -> tuple[int, int, int]:
    return {"L_": _LEFT, "R_": _RIGHT}.get(JOINTS30.joints[joint][:2], _MIDDLE)


def _tile(sample: Sample) -> UInt8[np.ndarray, "h w 3"]:
    image = np.asarray(cv2.resize(sample.crop, None, fx=1.5, fy=1.5), np.uint8)
    at = [(round(float(x) * 1.5), round(float(y) * 1.5)) for x, y in np.clip(sample.joints2d, -500, 800)]
    for a, b in JOINTS30.limbs:
        if sample.joints2d_valid[a] and sample.joints2d_valid[b]:
            side = b if JOINTS30.joints[b][:2] in ("L_", "R_") else a
            cv2.line(image, at[a], at[b], _colour(side), 2, cv2.LINE_AA)
    for joint, (x, y) in enumerate(at):
        if sample.joints2d_valid[joint]:
            cv2.circle(image, (x, y), 4, _colour(joint), -1, cv2.LINE_AA)
        if sample.fit_valid:
            u, v = (round(float(c) * 1.5) for c in np.clip(sample.fit_joints2d[joint], -500, 800))
            cv2.circle(image, (u, v), 6, (60, 255, 60), 1, cv2.LINE_AA)
        if sample.visible[joint]:
            u, v = (round(float(c) * 1.5) for c in sample.joints[joint])
            cv2.drawMarker(image, (u, v), (255, 60, 200), cv2.MARKER_CROSS, 7, 1, cv2.LINE_AA)
    words = sample.record_id if len(sample.record_id) < 44 else "..." + sample.record_id[-41:]
    size = int(CROP * 1.5)
    cv2.putText(image, words, (5, size - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 0), 1, cv2.LINE_AA)
    return image
