"""Write shards: each person's surroundings as a JPEG that leaves room for augmentation, and its annotation.

The stored image is the part of a window of ROOM times the box that lies in the image, shrunk so that the window
has at most `side` pixels (never enlarged): 384 px for 1.65 boxes is the resolution that a crop of 1.1 boxes has at
256 px. Pixel annotations and the camera are moved along; everything else stays.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from dpmesh.assets import sha256
from dpmesh.data.annotation import Annotation, damage, to_plain
from dpmesh.data.images import decode_rgb, read_bytes
from dpmesh.data.shards import FORMAT, MANIFEST, index_of, is_packed, read_manifest, torn
from dpmesh.errors import ConfigError, InputError, OutputError
from dpmesh.geometry.crop import sample_window
from dpmesh.io import LOCK, atomic_path, atomic_write, folder_lock, is_part, reason

ROOM = 1.65
"""Stored window in squares around the box: augmentation shows up to 1.5, and a turned square's corners more."""


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """side: px of the stored window at most.  per_shard: people.  quality: of the JPEG."""

    side: int = 384
    per_shard: int = 2000
    quality: int = 92

    def __post_init__(self) -> None:
        if not (64 <= self.side <= 2048 and 1 <= self.per_shard <= 100_000 and 50 <= self.quality <= 100):
            raise ConfigError(f"{self}: side 64-2048, per_shard 1-100000, quality 50-100")


@dataclass(frozen=True)
class Packed:
    """people: in all shards. written, intact: shards that were written now, and that had been written before.
    skipped: record id -> reason.
    """

    people: int
    written: int
    intact: int
    skipped: dict[str, str]


def pack(
    people: Sequence[Annotation],
    out: Path,
    name: str,
    config: PackConfig,
    progress: Callable[[int], None] = lambda done: None,
) -> Packed:
    """Write `out`/NAME-00000.tar ... and add NAME to the manifest; whole shards of the same people are kept.

    progress: called with the number of people done. Raises OutputError where it cannot write, the folder holds NAME
    packed otherwise or other files than packed people, or another process packs there; needs webdataset
    (ConfigError). Whatever ends the process, no part of a shard is taken for a whole one, and the next run resumes.
    """
    writer = _tar_writer()
    _refuse_strangers(out)
    with folder_lock(out, "packing"):
        return _pack(people, out, name, config, progress, writer)


def _refuse_strangers(out: Path) -> None:
    """Raise OutputError for a folder that holds other files: they are neither overwritten nor mixed with shards."""
    try:
        inside = sorted(path.name for path in out.iterdir()) if os.path.isdir(out) else []
    except OSError as error:
        raise OutputError(f"cannot be read ({reason(error)})", where=str(out)) from None
    strange = [name for name in inside if name != LOCK and not is_part(name, MANIFEST)]
    if strange and not is_packed(out):
        raise OutputError(
            f"holds other files than packed people ({strange[0]})",
            where=str(out),
            fix="Choose a new or empty folder.",
        )


def _pack(
    people: Sequence[Annotation],
    out: Path,
    name: str,
    config: PackConfig,
    progress: Callable[[int], None],
    writer: Any,
) -> Packed:
    what = {
        "people": len(people), "side": config.side, "per_shard": config.per_shard, "quality": config.quality,
        "records": hashlib.sha256("\n".join(p.record_id for p in people).encode()).hexdigest(),
    }  # fmt: skip
    manifest: dict[str, Any] = read_manifest(out) if is_packed(out) else {"format": FORMAT, "sets": {}}
    before = manifest["sets"].get(name)
    shards = -(-len(people) // config.per_shard)
    if before is not None and before != {**what, "shards": shards}:
        raise OutputError(
            f"{name} has been packed here from other people or with other settings",
            where=str(out),
            fix="Choose another folder, or remove the old shards.",
        )
    total, written, intact, skipped = 0, 0, 0, dict[str, str]()
    own = [MANIFEST, *(f"{name}-{k:05d}.{suffix}" for k in range(shards) for suffix in ("tar", "json"))]
    for leftover in out.glob(".*.part"):  # of a run that was killed: under the lock no process writes it
        if any(is_part(leftover.name, file) for file in own):
            leftover.unlink(missing_ok=True)
    manifest["sets"][name] = {**what, "shards": shards}
    atomic_write(out / MANIFEST, _json(manifest))
    for number in range(shards):
        shard = out / f"{name}-{number:05d}.tar"
        index = index_of(shard)
        if index is not None and not torn(shard, index, whole=True):
            intact += 1
        else:
            chunk = people[number * config.per_shard : (number + 1) * config.per_shard]
            index = _write_shard(shard, chunk, config, writer)
            written += 1
        total += len(index["people"])
        skipped |= index["skipped"]
        progress(min((number + 1) * config.per_shard, len(people)))
    return Packed(total, written, intact, skipped)


def stored(
    person: Annotation, image: UInt8[np.ndarray, "h w 3"], side: int
) -> tuple[Annotation, UInt8[np.ndarray, "h2 w2 3"]]:
    """The person in the image that a shard keeps, and that image."""
    height, width = image.shape[:2]
    extent = ROOM * float(np.max(person.box[2:] - person.box[:2]))
    middle = (person.box[:2] + person.box[2:]) / 2
    low = np.maximum(np.floor(middle - extent / 2), 0)
    high = np.minimum(np.ceil(middle + extent / 2), [width - 1, height - 1])
    zoom = min(1.0, side / extent)
    size = np.maximum(np.ceil((high - low) * zoom).astype(int) + 1, 2)  # whole px at both ends
    to_image = np.array([[1 / zoom, 0, low[0]], [0, 1 / zoom, low[1]]])
    small = sample_window(image, to_image, (int(size[1]), int(size[0])))

    def moved(points: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return ((points - low) * zoom * (valid > 0)[..., None]).astype(np.float32)

    K = np.array([[zoom, 0, -low[0] * zoom], [0, zoom, -low[1] * zoom], [0, 0, 1]]) @ person.K
    detected = person.detected
    if len(detected):
        detected = np.concatenate([moved(detected[:, :2], detected[:, 2]), detected[:, 2:]], 1)
    person = replace(
        person,
        size=(int(size[0]), int(size[1])),
        box=(person.box.reshape(2, 2) - low).reshape(4) * zoom,
        K=K,
        joints2d=moved(person.joints2d, person.joints2d_valid),
        neighbours=moved(person.neighbours, person.neighbour_flags),
        detected=detected,
        annotated=(person.annotated.reshape(2, 2) - low).reshape(4) * zoom,
        full_place=np.array([*((person.full_place[:2] - low) * zoom), person.full_place[2] * zoom]),
    )
    return person, small


def _write_shard(
    shard: Path, people: Sequence[Annotation], config: PackConfig, writer: Any
) -> dict[str, Any]:
    """Written to a temporary file, then renamed: tar first, index last, so that an index means a whole shard."""
    skipped: dict[str, str] = {}
    sums: list[int] = []
    with atomic_path(shard) as part:
        with part.open("wb") as file:
            tar = writer(file, encoder=False, mtime=0.0)
            for number, person in enumerate(people):
                try:
                    kept, small = _readable(person, config.side)
                except InputError as error:
                    skipped[person.record_id] = error.what
                    continue
                image, text = encode_jpeg(small, config.quality), _json(to_plain(kept)).encode()
                tar.write({"__key__": f"{number:06d}", "jpg": image, "json": text})
                sums.append(zlib.crc32(text, zlib.crc32(image)))
            tar.close()
        index: dict[str, Any] = {"bytes": part.stat().st_size, "sha256": sha256(part), "skipped": skipped}
        index["people"] = [[*place, check] for place, check in zip(_places(part), sums, strict=True)]
        shard.with_suffix(".json").unlink(missing_ok=True)  # of an older tar, which this one now replaces
    atomic_write(shard.with_suffix(".json"), _json(index))
    return index


def _readable(person: Annotation, side: int) -> tuple[Annotation, UInt8[np.ndarray, "h w 3"]]:
    """`stored` for a person whose record and image are whole; raises InputError for any other."""
    if wrong := damage(person):
        raise InputError(wrong, where=person.record_id)
    image = decode_rgb(read_bytes(person.image), str(person.image))
    return stored(person, image, side)


def _places(tar: Path) -> list[list[int]]:
    """Offset and length of the image and of the annotation of each person, in order."""
    with tarfile.open(tar) as archive:
        members = {member.name: [member.offset_data, member.size] for member in archive.getmembers()}
    return [members[name] + members[f"{name[:-4]}.json"] for name in sorted(members) if name.endswith(".jpg")]


def encode_jpeg(image: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    return np.asarray(data, np.uint8).tobytes()


def _json(content: object) -> str:
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _tar_writer() -> Any:
    try:
        from webdataset import TarWriter  # pyright: ignore
    except ImportError:
        raise ConfigError(
            "packing needs the package webdataset", fix="Install it: pip install 'dpmesh[train]'."
        ) from None
    return TarWriter
