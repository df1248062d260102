"""3DPW as downloaded: `sequenceFiles/{split}/{sequence}.pkl` (Python 2 pickles) and `imageFiles/{sequence}/`.

Fields of a sequence: poses, trans, betas, genders, poses2d, campose_valid, jointPositions (lists, one item a person),
cam_poses (frames × 4×4, world to camera), cam_intrinsics (3×3). Everything is in the world frame, metres.
A person-frame counts by the protocol's rule: "posed and inside": `campose_valid` and one of the 24 joints inside the
image (Pose2Mesh's JSON files); "posed with keypoints": `campose_valid` and poses2d not all zero (VIBE, ROMP).
"""

from collections import Counter
from pathlib import Path

import numpy as np
import roma
import torch
from numpy.typing import NDArray

from dpmesh.assets import sha256
from dpmesh.data.datasets.threedpw import (
    BOX_ENLARGED,
    IMAGES,
    Sequence,
    image_name,
    read_sequence,
    sequence_files,
)
from dpmesh.decode import image_size
from dpmesh.errors import InputError
from dpmesh.evaluate.checks import misfits, rotations
from dpmesh.evaluate.interfaces import BodyTruth, Census, PersonRecord
from dpmesh.evaluate.protocol import Protocol
from dpmesh.evaluate.readers.threedpw_json import projected, within
from dpmesh.skeletons import JOINTS30, OPENPOSE18, convert


def read(protocol: Protocol, folder: Path) -> tuple[list[PersonRecord], Census]:
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
            if not _wanted(protocol, path.stem):
                continue
            with misfits(path):
                records += _sequence(protocol, path, folder / IMAGES / path.stem, left_out)
            files[f"{split}/{path.name}"] = sha256(path)
    records.sort(key=lambda record: record.id)
    return records, Census(len(records), protocol.persons, "official 3DPW pickles", +left_out, files)


def _wanted(protocol: Protocol, sequence: str) -> bool:
    framed = [name for name, *_ in protocol.selection.frames]
    if framed:
        return sequence in framed
    return within(protocol, sequence, 0)


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
        inside, boxes = _inside(joints, K, size)
        for frame in range(frames):
            if not within(protocol, name, frame):
                continue
            if reason := _why_not(protocol, people, person, frame, bool(inside[frame].any())):
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


def _why_not(protocol: Protocol, people: Sequence, person: int, frame: int, inside: bool) -> str:
    """Why the rule leaves a person-frame out; empty where it does not."""
    if not people.campose_valid[person, frame]:
        return "campose_valid is 0"
    if protocol.selection.rule == "posed and inside" and not inside:
        return "no joint inside the picture"
    if protocol.selection.rule == "posed with keypoints" and not people.keypoints[person, frame].any():
        return "poses2d is all zero"
    return ""


def _turned(rotation: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation vectors (f, 3) after a rotation from the left."""
    own = roma.rotvec_to_rotmat(torch.from_numpy(np.ascontiguousarray(vectors)))
    turned = torch.from_numpy(np.ascontiguousarray(rotation)) @ own
    return roma.rotmat_to_rotvec(turned).numpy()


def _inside(
    joints: NDArray[np.float64], K: NDArray[np.float64], size: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which joints (f, 24) are inside the image, and an annotated box (f, 4) around those (zero without any)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = (joints @ K.T)[..., :2] / joints[..., 2:]
        ok = (joints[..., 2] > 0) & (pixels >= 0).all(-1) & (pixels < np.array(size[::-1])).all(-1)
    low = np.where(ok[..., None], pixels, np.inf).min(1)
    high = np.where(ok[..., None], pixels, -np.inf).max(1)
    with np.errstate(invalid="ignore"):
        middle, half = (low + high) / 2, (high - low) / 2 * BOX_ENLARGED
    boxes = np.concatenate([middle - half, middle + half], 1)
    return ok, np.where(ok.any(1, keepdims=True), boxes, 0.0)


def _image_size(path: Path) -> tuple[int, int]:
    """(h, w) from the header of a sequence's first image: the pickles do not store it."""
    if not path.exists():
        raise InputError(
            "no such image", where=str(path), fix="Unpack 3DPW's imageFiles.zip next to sequenceFiles."
        )
    width, height = image_size(path)
    return height, width
