"""CMU-Panoptic as multiperson (Jiang et al.) released it: `processed/annotations/{sequence}.pkl`.

A list of {filename, width, height, bboxes N×4 (x1 y1 x2 y2), kpts2d N×24×3, kpts3d N×24×4 (metres, camera frame, last
1 where measured)}, joints in SPIN's 24-joint order. Boxes and 2D joints are pixels of an image of width × height,
which may be a smaller copy: they are scaled to the image on disk when it is opened.
"""

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpmesh.assets import sha256
from dpmesh.body.unpickle import load_pickle
from dpmesh.errors import InputError
from dpmesh.evaluate.interfaces import Census, JointTruth, PersonRecord
from dpmesh.evaluate.protocol import Protocol
from dpmesh.fields import entry, first_existing, misfits, numbers, whole
from dpmesh.io import path_inside
from dpmesh.skeletons import H36M17, JOINTS30, Skeleton, convert

SPIN24 = Skeleton(
    "SPIN-24",
    ("R_Ankle", "R_Knee", "R_Hip", "L_Hip", "L_Knee", "L_Ankle", "R_Wrist", "R_Elbow", "R_Shoulder", "L_Shoulder",
     "L_Elbow", "L_Wrist", "Neck", "Head_top_LSP", "Pelvis", "Thorax", "Torso", "Nose_H36M", "Head_top", "Nose",
     "L_Eye", "R_Eye", "L_Ear", "R_Ear"),
)  # fmt: skip
"""SPIN's own names for four of them are HeadTop, Spine, Jaw and Head: Human3.6M's rows Torso, Nose and Head_top are
its Spine, Jaw and Head, as the published mapping to 17 joints has it."""

TO_H36M17 = tuple(SPIN24.index("Nose_H36M" if joint == "Nose" else joint) for joint in H36M17.joints)
"""By name, so the right leg comes first as in `_correct`; the published list has the left leg first, like SPIN's
regressor (the pairing of truth and prediction is the same)."""


def read(protocol: Protocol, root: Path) -> tuple[list[PersonRecord], Census]:
    """root: the folder that holds `processed/`. Records in the file's order. Raises InputError."""
    with misfits(root):
        return _read(protocol, root)


def _read(protocol: Protocol, root: Path) -> tuple[list[PersonRecord], Census]:
    records: list[PersonRecord] = []
    left_out: Counter[str] = Counter()
    files: dict[str, str] = {}
    for sequence in protocol.selection.sequences:
        path = first_existing(
            [
                root / "processed" / "annotations" / f"{sequence}.pkl",
                root / "annotations" / f"{sequence}.pkl",
            ],
            f"the Panoptic sequence {sequence}",
        )
        content = load_pickle(path)
        files[path.name] = sha256(path)
        if not isinstance(content, list):
            raise InputError("not a list of frames", where=str(path), fix="This is not multiperson's file.")
        for number, frame in enumerate(content):
            where = f"{path}: [{number}]"
            name = str(entry(frame, "filename", where)).replace("\\", "/")
            size = (
                whole(entry(frame, "height", where), f"{where}.height", low=1),
                whole(entry(frame, "width", where), f"{where}.width", low=1),
            )
            boxes = numbers(entry(frame, "bboxes", where), (-1, 4), f"{where}.bboxes")
            flat = numbers(entry(frame, "kpts2d", where), (len(boxes), 24, 3), f"{where}.kpts2d")
            solid = numbers(entry(frame, "kpts3d", where), (len(boxes), 24, 4), f"{where}.kpts3d")
            for person in range(len(boxes)):
                joints = solid[person, list(TO_H36M17)]
                if not joints[0, 3]:
                    left_out["the pelvis was not measured"] += 1
                    continue
                records.append(
                    PersonRecord(
                        id=f"{sequence}/{Path(name).with_suffix('').as_posix()}/{person}",
                        sequence=sequence,
                        image=_image(root, path.parent, name, where),
                        size=size,
                        box=boxes[person],
                        keypoints=_keypoints(protocol, flat[person]),
                        truth=JointTruth(joints),
                    )
                )
    return records, Census(len(records), protocol.persons, "multiperson's Panoptic pickles", +left_out, files)


def _keypoints(protocol: Protocol, points: NDArray[np.float64]) -> NDArray[np.float32] | None:
    return convert(points, SPIN24, JOINTS30) if protocol.keypoints.source == "annotated" else None


def _image(root: Path, annotations: Path, name: str, where: str) -> Path:
    candidates = [
        path_inside(folder, name, where)
        for folder in (root, root / "processed", annotations.parent, root / "images")
    ]
    return next((path for path in candidates if path.is_file()), candidates[0])
