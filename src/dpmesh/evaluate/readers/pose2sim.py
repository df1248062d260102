"""The set pose2sim, which tools/assets/build_pose2sim.py builds: `Pose2Sim/pose2sim.json` beside the images.

One man before four cameras, alone (`clean/CAMERA/FRAME.jpg`) and with a rendered woman (`occluded/`). Fields of the
file: frames (f): their numbers. cameras: name -> size (width, height), K, R, t (world to camera, metres). joints
f×17×4: COCO-17, triangulated, metres in the world frame, last 1 where measured. boxes f×4×4 (frame, camera): x1 y1 x2
y2 around the joints, px. keypoints, residual_px, bones and a camera's other fields are for people to read.
"""

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpmesh.assets import sha256
from dpmesh.errors import InputError
from dpmesh.evaluate.frame_selection import frame_selected
from dpmesh.evaluate.interfaces import Census, JointTruth, PersonRecord
from dpmesh.evaluate.protocol import Protocol
from dpmesh.fields import camera, entry, misfits, numbers, read_json, rotations, rows, whole
from dpmesh.io import path_inside
from dpmesh.skeletons import COCO17, H36M17

FILE = "pose2sim.json"
OCCLUDED = "pose2sim-occluded"
"""The data set's name of the images with the woman."""


def read(protocol: Protocol, folder: Path) -> tuple[list[PersonRecord], Census]:
    """Records by camera and frame. Raises InputError."""
    path = folder / FILE
    if not path.is_file():
        raise InputError(
            "no such file",
            where=str(path),
            fix="Build it: python -m tools.assets.build_pose2sim (docs/guide/evaluation.md).",
        )
    with misfits(path):
        return _read(protocol, path)


def _read(protocol: Protocol, path: Path) -> tuple[list[PersonRecord], Census]:
    content = read_json(path, "Build it again: python -m tools.assets.build_pose2sim.")
    cameras = entry(content, "cameras", str(path))
    frames = [whole(f, f"{path}: frames[{i}]") for i, f in enumerate(rows(content, "frames", str(path)))]
    joints = numbers(
        entry(content, "joints", str(path)), (len(frames), len(COCO17), 4), f"{path}: joints", finite=False
    )
    boxes = numbers(entry(content, "boxes", str(path)), (len(frames), len(cameras), 4), f"{path}: boxes")
    images = "occluded" if protocol.selection.dataset == OCCLUDED else "clean"
    records: list[PersonRecord] = []
    left_out: Counter[str] = Counter()
    for column, (name, about) in enumerate(cameras.items()):
        where = f"{path}: cameras.{name}"
        K = camera(entry(about, "K", where), f"{where}.K")
        R = rotations(numbers(entry(about, "R", where), (3, 3), f"{where}.R"), f"{where}.R")
        t = numbers(entry(about, "t", where), (3,), f"{where}.t")
        width, height = (whole(side, f"{where}.size", low=1) for side in entry(about, "size", where))
        for row, frame in enumerate(frames):
            if not frame_selected(protocol.selection, name, frame):
                continue
            truth = _truth(protocol, joints[row], R, t)
            if truth is None:
                left_out["a joint was not measured"] += 1
                continue
            records.append(
                PersonRecord(
                    id=f"{name}/{frame:03d}",
                    sequence=name,
                    image=path_inside(path.parent, f"{images}/{name}/{frame:03d}.jpg", where),
                    size=(height, width),
                    box=boxes[row, column],
                    keypoints=None,
                    truth=truth,
                    K=K,
                )
            )
    files = {path.name: sha256(path)}
    return records, Census(len(records), protocol.persons, "tools/assets/build_pose2sim.py", +left_out, files)


def _truth(
    protocol: Protocol, coco: NDArray[np.float64], R: NDArray[np.float64], t: NDArray[np.float64]
) -> JointTruth | None:
    """In the camera frame, with the middle of the hips as pelvis; None unless the protocol's joints were measured."""
    joints = np.zeros((17, 4))
    for row in protocol.measure.rows:
        joints[row] = coco[COCO17.index(H36M17.joints[row])]
    if not (joints[list(protocol.measure.rows), 3] > 0).all():
        return None
    joints[H36M17.index("Pelvis")] = (joints[H36M17.index("L_Hip")] + joints[H36M17.index("R_Hip")]) / 2
    joints[:, :3] = np.where(joints[:, 3:] > 0, joints[:, :3] @ R.T + t, 0.0)
    return JointTruth(joints)
