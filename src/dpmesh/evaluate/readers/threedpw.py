"""3DPW and its subsets, as downloaded (`sequenceFiles/{split}/{sequence}.pkl`) or as 3DCrowdNet's JSON.

Which frames and people count is decided in frame_selection.py: "posed and inside": `campose_valid` and one of the 24
joints inside the image (Pose2Mesh's rule, by which the JSON files are filtered already); "posed with keypoints":
`campose_valid` and poses2d not all zero (VIBE, ROMP). 3DPW_oc.json and 3DPW_pc.json hold just the subset: what lies
outside a protocol's sequences or frames is left out where the file is a whole split (crowd), and kept but counted where
the file itself is the definition.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import roma
import torch
from jaxtyping import Float, Float32
from numpy.typing import NDArray

from dpmesh.assets import sha256
from dpmesh.data.datasets.threedpw import (
    IMAGES,
    image_name,
    json_file,
    read_sequence,
    sequence_files,
)
from dpmesh.data.datasets.threedpw_json import JsonPerson, read_images, read_person
from dpmesh.decode import image_size
from dpmesh.errors import InputError
from dpmesh.evaluate.frame_selection import (
    frame_selected,
    joints_inside,
    left_out_because,
    sequence_selected,
)
from dpmesh.evaluate.interfaces import BodyTruth, Census, PersonRecord
from dpmesh.evaluate.protocol import Protocol
from dpmesh.fields import entry, misfits, numbers, read_json, rotations
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


def read_sequences(protocol: Protocol, folder: Path) -> tuple[list[PersonRecord], Census]:
    """Records by sequence, frame, person. Raises InputError."""
    if protocol.keypoints.source == "hhrnet":
        raise InputError(
            "HigherHRNet's keypoints are filed by annotation numbers of the JSON files, which the official pickles"
            " do not have",
            where=str(folder),
            fix=f"Put 3DPW_latest_validation.json there, or run {protocol.name}@as-run (OpenPose).",
        )
    records: list[PersonRecord] = []
    left_out: Counter[str] = Counter()
    files: dict[str, str] = {}
    for split in protocol.selection.splits:
        inside = folder / "sequenceFiles" / split
        paths = sequence_files(folder, split)
        if not paths:
            raise InputError(
                "no sequence (.pkl) here", where=str(inside), fix="Unpack 3DPW's sequenceFiles.zip there."
            )
        for path in paths:
            if not sequence_selected(protocol.selection, path.stem):
                continue
            with misfits(path):
                records += _sequence(protocol, path, folder / IMAGES / path.stem, left_out)
            files[f"{split}/{path.name}"] = sha256(path)
    records.sort(key=lambda record: record.id)
    return records, Census(len(records), protocol.persons, "official 3DPW pickles", +left_out, files)


def _sequence(protocol: Protocol, path: Path, images: Path, left_out: Counter[str]) -> list[PersonRecord]:
    people, where, name = read_sequence(path), str(path), path.stem
    cameras, K = people.world_to_camera, people.K
    rotation, frames = cameras[:, :3, :3], len(cameras)
    size = _image_size(images / image_name(0))
    records: list[PersonRecord] = []
    for person, gender in enumerate(people.genders):
        pose = people.pose[person].reshape(frames, 72).copy()
        pose[:, :3] = _turned(rotation, pose[:, :3])
        transl = np.einsum("fij,fj->fi", rotation, people.transl[person]) + cameras[:, :3, 3]
        joints = np.einsum("fij,fkj->fki", rotation, people.joints[person])
        joints = joints + cameras[:, None, :3, 3]
        inside, boxes = joints_inside(joints, K, size)
        for frame in range(frames):
            if not frame_selected(protocol.selection, name, frame):
                continue
            if reason := left_out_because(
                protocol.selection, people, person, frame, bool(inside[frame].any())
            ):
                left_out[reason] += 1
                continue
            rotations(cameras[frame, :3, :3], f"{where}: cam_poses[{frame}]")  # of others it may be anything
            records.append(
                PersonRecord(
                    id=f"{name}/{frame:05d}/{person}",
                    sequence=name,
                    image=images / image_name(frame),
                    size=size,
                    box=boxes[frame],
                    keypoints=projected(joints[frame], K)
                    if protocol.keypoints.source == "annotated"
                    else convert(people.keypoints[person, frame], OPENPOSE18, JOINTS30),
                    truth=BodyTruth(
                        gender,
                        pose[frame].reshape(24, 3),
                        people.betas[person],
                        transl[frame],
                        turned_about_pelvis=rotation[frame],
                    ),
                    K=K,
                )
            )
    return records


def _turned(rotation: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation vectors (f, 3) after a rotation from the left."""
    own = roma.rotvec_to_rotmat(torch.from_numpy(np.ascontiguousarray(vectors)))
    turned = torch.from_numpy(np.ascontiguousarray(rotation)) @ own
    return roma.rotmat_to_rotvec(turned).numpy()


def _image_size(path: Path) -> tuple[int, int]:
    """(h, w) from the header of a sequence's first image: the pickles do not store it."""
    if not path.exists():
        raise InputError(
            "no such image", where=str(path), fix="Unpack 3DPW's imageFiles.zip next to sequenceFiles."
        )
    width, height = image_size(path)
    return height, width


def read_json_files(protocol: Protocol, folder: Path) -> tuple[list[PersonRecord], Census]:
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
    records: list[tuple[tuple[str, int, int], PersonRecord]] = []
    counts: Counter[str] = Counter()
    for image in read_images(path, content):
        if not image.people:
            continue
        if not frame_selected(protocol.selection, image.sequence, image.frame):
            if protocol.selection.dataset not in _DEFINES_ITSELF:
                counts["outside the protocol's sequences"] += len(image.people)
                continue
            counts["kept, though outside the published definition"] += len(image.people)
        file, (width, height), K = image.file(folder), image.size, image.K.astype(np.float32)
        for where, row in image.people:
            person = read_person(row, where)
            points, matched = _keypoints(person, better)
            if protocol.keypoints.source == "annotated":
                points = projected(person.joints, K)
            counts["no HigherHRNet pose matched: OpenPose's taken"] += better is not None and not matched
            record = PersonRecord(
                id=f"{image.sequence}/{image.frame:05d}/{person.person}",
                sequence=image.sequence,
                image=file,
                size=(height, width),
                box=np.concatenate([person.box[:2], person.box[:2] + person.box[2:]]),
                keypoints=points,
                truth=BodyTruth(person.gender, person.pose, person.betas, person.transl),
                K=K,
            )
            records.append(((image.sequence, image.frame, person.person), record))
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


def _keypoints(person: JsonPerson, better: dict[str, Any] | None) -> tuple[Float32[np.ndarray, "30 3"], bool]:
    """In the 30-joint set, and whether they are HigherHRNet's (matched by the annotation's id)."""
    if better is not None and person.annotation in better:
        place = f"{CROWD_KEYPOINTS}: {person.annotation}"
        coco = numbers(entry(better[person.annotation], "coco_joints", place), (17, 3), place)
        return convert(coco, COCO17, JOINTS30), True
    return convert(person.openpose, OPENPOSE18, JOINTS30), False
