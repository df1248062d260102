"""3DOH (OOH50K): JOTR's `OH3D/3doh_test_annots_scale_1.json`, or `annots.json` of the official test set.

JOTR's file: {image: {pose, shape, trans, scale, bbox, hrnet_results 17×3}}, camera frame. The official one is keyed
by number; its pose is in the world frame, so the root is turned by `extri`; its 3D joints have an arbitrary scale and
are not used, nor are trans and scale: the truth is the neutral body of (betas, pose) in metres.
"""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import roma
import torch

from dpmesh.assets import sha256
from dpmesh.errors import InputError
from dpmesh.evaluate.interfaces import BodyTruth, Census, PersonRecord
from dpmesh.evaluate.protocol import Protocol
from dpmesh.fields import betas, camera, entry, misfits, numbers, read_json, rotations
from dpmesh.io import path_inside
from dpmesh.skeletons import COCO17, JOINTS30, convert

JOTR_FILE = "3doh_test_annots_scale_1.json"
_NOTE = "3DOH's trans and scale carry no metric meaning and were not used"


def read_jotr(protocol: Protocol, folder: Path) -> tuple[list[PersonRecord], Census]:
    """folder: with JOTR's file and `images/`. Raises InputError."""
    with misfits(folder / JOTR_FILE):
        return _jotr(protocol, folder)


def read_official(protocol: Protocol, path: Path) -> tuple[list[PersonRecord], Census]:
    """path: testset/annots.json; its images lie below its folder. Raises InputError."""
    with misfits(path):
        return _official(protocol, path)


def _jotr(protocol: Protocol, folder: Path) -> tuple[list[PersonRecord], Census]:
    path = folder / JOTR_FILE
    content = read_json(path)
    records: list[PersonRecord] = []
    for name in sorted(_table(content, path)):
        row, where = content[name], f"{path}: {name}"
        keypoints = None
        if protocol.keypoints.source == "hrnet":
            coco = numbers(entry(row, "hrnet_results", where), (17, 3), f"{where}.hrnet_results")
            keypoints = convert(coco, COCO17, JOINTS30)
        records.append(
            PersonRecord(
                id=Path(name).stem,
                sequence="3doh",
                image=path_inside(folder / "images", _base(name), where),
                size=None,
                # Two corners, whether they are stored as 2×2 or as four numbers.
                box=np.ravel(numbers(np.ravel(entry(row, "bbox", where)), (4,), f"{where}.bbox")),
                keypoints=keypoints,
                truth=BodyTruth(
                    "neutral",
                    numbers(np.ravel(entry(row, "pose", where)), (72,), f"{where}.pose").reshape(24, 3),
                    betas(entry(row, "shape", where), f"{where}.shape"),
                    numbers(np.ravel(entry(row, "trans", where)), (3,), f"{where}.trans"),
                ),
            )
        )
    notes = ("the root is taken as stored: whether JOTR's file is in the camera frame could not be checked",)
    return records, Census(
        len(records), protocol.persons, "JOTR's 3DOH JSON", files={path.name: sha256(path)}, notes=notes
    )


def _official(protocol: Protocol, path: Path) -> tuple[list[PersonRecord], Census]:
    if protocol.keypoints.source == "hrnet":
        raise InputError(
            "the official 3DOH files hold no detected keypoints",
            where=str(path),
            fix=f"Put JOTR's {JOTR_FILE} into OH3D, or run {protocol.name}@detector.",
        )
    content = read_json(path)
    records: list[PersonRecord] = []
    left_out: Counter[str] = Counter()
    for key in sorted(_table(content, path)):
        row, where = content[key], f"{path}: {key}"
        pose = numbers(entry(row, "pose", where), (72,), f"{where}.pose").reshape(24, 3).copy()
        extrinsic = numbers(entry(row, "extri", where), (-1, 4), f"{where}.extri")
        if len(extrinsic) < 3:
            raise InputError("fewer than three rows", where=f"{where}.extri")
        pose[0] = _turned(rotations(extrinsic[:3, :3], f"{where}.extri"), pose[0])
        named = str(entry(row, "img_path", where)).replace("\\", "/")
        records.append(
            PersonRecord(
                id=Path(named).stem,
                sequence="3doh",
                image=_image(path.parent, named, where),
                size=None,
                box=numbers(np.ravel(entry(row, "bbox", where)), (4,), f"{where}.bbox"),
                keypoints=None,
                truth=BodyTruth(
                    "neutral",
                    pose,
                    betas(entry(row, "betas", where), f"{where}.betas"),
                    np.zeros(3),
                ),
                K=camera(entry(row, "intri", where), f"{where}.intri"),
            )
        )
    return records, Census(
        len(records),
        protocol.persons,
        "official 3DOH annots.json",
        +left_out,
        {path.name: sha256(path)},
        (_NOTE,),
    )


def _table(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict) or not content:
        raise InputError("not a table by image", where=str(path), fix="This is not 3DOH's file.")
    return content


def _base(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _image(folder: Path, named: str, where: str) -> Path:
    """The image's path. The file may name folders of the machine that it was made on; those are not used."""
    names = [_base(named), f"images/{_base(named)}", _base(named)]
    with suppress(InputError):
        path_inside(folder, named, where)
        names[0] = named
    candidates = [path_inside(folder, name, where) for name in names]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _turned(rotation: np.ndarray, vector: np.ndarray) -> np.ndarray:
    own = roma.rotvec_to_rotmat(torch.from_numpy(vector))
    return roma.rotmat_to_rotvec(torch.from_numpy(np.ascontiguousarray(rotation)) @ own).numpy()
