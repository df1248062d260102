"""3DPW as users of 3DCrowdNet, JOTR and DPMesh have it: `3DPW/3DPW_*.json` in COCO's style next to `imageFiles/`.

These files are already filtered (Pose2Mesh's rule: `campose_valid`, a joint inside the image) and already in the
camera frame; 3DPW_oc.json and 3DPW_pc.json hold just the subset. What lies outside a protocol's sequences or frames
is left out where the file is a whole split (crowd), and kept but counted where the file itself is the definition.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from dpmesh.assets import sha256
from dpmesh.data.datasets.threedpw import IMAGES, json_file
from dpmesh.errors import InputError
from dpmesh.evaluate.checks import betas, camera, entry, misfits, numbers, read_json, rows, whole
from dpmesh.evaluate.frame_selection import frame_selected
from dpmesh.evaluate.interfaces import BodyTruth, Census, PersonRecord
from dpmesh.evaluate.protocol import Protocol
from dpmesh.io import path_inside
from dpmesh.skeletons import COCO17, JOINTS30, OPENPOSE18, SMPL24, convert

FILES = {
    "3dpw": json_file("test"),
    "3dpw-oc": "3DPW_oc.json",
    "3dpw-pc": "3DPW_pc.json",
    "3dpw-crowd": json_file("validation"),
    "3dpw-validation": json_file("validation"),
}
CROWD_KEYPOINTS = "3DPW_validation_crowd_hhrnet_result.json"
_DEFINES_ITSELF = ("3dpw-oc", "3dpw-pc")


def read(protocol: Protocol, folder: Path) -> tuple[list[PersonRecord], Census]:
    """Records by sequence, frame, person. Raises InputError."""
    with misfits(folder):
        return _read(protocol, folder)


def _read(protocol: Protocol, folder: Path) -> tuple[list[PersonRecord], Census]:
    path = folder / FILES[protocol.selection.dataset]
    content = read_json(path)
    files = {path.name: sha256(path)}
    better: dict[str, Any] | None = None
    if protocol.keypoints.source == "hhrnet":
        keypoints_path = folder / CROWD_KEYPOINTS
        if not keypoints_path.is_file():
            raise InputError(
                "the HigherHRNet keypoints of 3DPW-Crowd are missing",
                where=str(keypoints_path),
                fix=f"Get it with 3DCrowdNet's data, or run {protocol.name}@as-run (OpenPose).",
            )
        better, files[keypoints_path.name] = read_json(keypoints_path), sha256(keypoints_path)
        if not isinstance(better, dict):
            raise InputError("not a table by annotation", where=str(keypoints_path), fix="Download it again.")
    images = {
        entry(row, "id", f"{path}: images[{i}]"): (i, row)
        for i, row in enumerate(rows(content, "images", str(path)))
    }
    records: list[tuple[tuple[str, int, int], PersonRecord]] = []
    counts: Counter[str] = Counter()
    for i, row in enumerate(rows(content, "annotations", str(path))):
        where = f"{path}: annotations[{i}]"
        number = entry(row, "image_id", where)
        if number not in images:
            raise InputError(f"image_id {number} is not among the images", where=where)
        at, image = images[number]
        place = f"{path}: images[{at}]"
        sequence = str(entry(image, "sequence", place))
        frame = whole(entry(image, "frame_idx", place), f"{place}.frame_idx", high=10**6)
        if not frame_selected(protocol.selection, sequence, frame):
            if protocol.selection.dataset not in _DEFINES_ITSELF:
                counts["outside the protocol's sequences"] += 1
                continue
            counts["kept, though outside the published definition"] += 1
        K = _camera(entry(image, "cam_param", place), f"{place}.cam_param")
        points, matched = _keypoints(row, better, where)
        if protocol.keypoints.source == "annotated":
            solid = numbers(entry(row, "joint_cam", where), (24, 3), f"{where}.joint_cam")
            points = projected(solid, K)
        counts["no HigherHRNet pose matched: OpenPose's taken"] += better is not None and not matched
        person = whole(entry(row, "person_id", where), f"{where}.person_id", high=10**6)
        named = f"{sequence}/{entry(image, 'file_name', place)}"
        record = PersonRecord(
            id=f"{sequence}/{frame:05d}/{person}",
            sequence=sequence,
            image=path_inside(folder / IMAGES, named, f"{place}.file_name"),
            size=(
                whole(entry(image, "height", place), f"{place}.height", low=1),
                whole(entry(image, "width", place), f"{place}.width", low=1),
            ),
            box=_xyxy(numbers(entry(row, "bbox", where), (4,), f"{where}.bbox")),
            keypoints=points,
            truth=_truth(entry(row, "smpl_param", where), f"{where}.smpl_param"),
            K=K,
        )
        records.append(((sequence, frame, person), record))
    records.sort(key=lambda item: item[0])
    census = Census(len(records), protocol.persons, "JSON of 3DCrowdNet, JOTR, DPMesh", +counts, files)
    return [record for _, record in records], census


def projected(joints: Float[np.ndarray, "24 3"], K: Float[np.ndarray, "3 3"]) -> Float32[np.ndarray, "30 3"]:
    """SMPL's joints (metres, camera frame) as keypoints that are sure, but for those behind the camera."""
    before = joints[:, 2] > 0
    flat = joints @ np.asarray(K, np.float64).T
    points = np.zeros((24, 3))
    points[before, :2] = flat[before, :2] / flat[before, 2:]
    points[:, 2] = before
    return convert(points, SMPL24, JOINTS30)


def _keypoints(
    row: Any, better: dict[str, Any] | None, where: str
) -> tuple[Float32[np.ndarray, "30 3"], bool]:
    """In the 30-joint set, and whether they are HigherHRNet's (matched by the annotation's id)."""
    key = str(entry(row, "id", where))
    if better is not None and key in better:
        place = f"{CROWD_KEYPOINTS}: {key}"
        coco = numbers(entry(better[key], "coco_joints", place), (17, 3), place)
        return convert(coco, COCO17, JOINTS30), True
    pose = numbers(entry(row, "openpose_result", where), (18, 3), f"{where}.openpose_result")
    return convert(pose, OPENPOSE18, JOINTS30), False


def _truth(parameters: Any, where: str) -> BodyTruth:
    gender = entry(parameters, "gender", where)
    if gender not in ("male", "female"):
        raise InputError(f"gender {gender!r} is neither male nor female", where=where)
    return BodyTruth(
        gender=gender,
        pose=numbers(entry(parameters, "pose", where), (72,), f"{where}.pose").reshape(24, 3),
        betas=betas(entry(parameters, "shape", where), f"{where}.shape"),
        transl=numbers(entry(parameters, "trans", where), (3,), f"{where}.trans"),
    )


def _camera(row: Any, where: str) -> Float32[np.ndarray, "3 3"]:
    focal = numbers(entry(row, "focal", where), (2,), f"{where}.focal")
    centre = numbers(entry(row, "princpt", where), (2,), f"{where}.princpt")
    K = [[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]]
    return camera(K, where).astype(np.float32)


def _xyxy(box: np.ndarray) -> np.ndarray:
    return np.concatenate([box[:2], box[:2] + box[2:]])
