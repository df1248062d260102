"""3DPW as downloaded: `sequenceFiles/{split}/{sequence}.pkl` (Python 2 pickles) and `imageFiles/{sequence}/`.

Fields of a sequence: poses, trans, betas, genders, poses2d, campose_valid, jointPositions (lists, one item a person),
cam_poses (frames × 4×4, world to camera), cam_intrinsics (3×3). Everything is in the world frame, metres.
Which count is decided in frame_selection.py: "posed and inside": `campose_valid` and one of the 24 joints inside the
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
    IMAGES,
    image_name,
    read_sequence,
    sequence_files,
)
from dpmesh.decode import image_size
from dpmesh.errors import InputError
from dpmesh.evaluate.checks import misfits, rotations
from dpmesh.evaluate.frame_selection import (
    frame_selected,
    joints_inside,
    left_out_because,
    sequence_selected,
)
from dpmesh.evaluate.interfaces import BodyTruth, Census, PersonRecord
from dpmesh.evaluate.protocol import Protocol
from dpmesh.evaluate.readers.threedpw_json import projected
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
