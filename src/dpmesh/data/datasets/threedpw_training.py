"""Training people of 3DPW, from its official sequence files or from 3DCrowdNet's JSON.

A person-frame counts if its camera is valid and one of SMPL's 24 joints lies inside the image; the sequences of the
occlusion benchmarks are left out unless they are asked for. Bodies are gendered: training takes pose and joints from
them, and not betas, which are of another model than the neutral one. The input is the set's own OpenPose detection.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dpmesh.data.annotation import Annotation, Array32, corners, inside_box, tight_box, to30, with_neighbours
from dpmesh.data.datasets.files import WHERE_FROM, Array, ReadRequest
from dpmesh.data.datasets.threedpw import (
    BOX_ENLARGED,
    IMAGES,
    Gender,
    Sequence,
    image_name,
    json_file,
    read_sequence,
    sequence_files,
    tested_on,
)
from dpmesh.data.datasets.threedpw_json import read_images, read_person
from dpmesh.data.fits import POSE_KNOWN, moved, turned
from dpmesh.errors import InputError
from dpmesh.fields import read_json
from dpmesh.geometry.camera import project
from dpmesh.io import path_inside
from dpmesh.skeletons import OPENPOSE18, SMPL24

DETECTED = 0.05
"""Confidence above which a joint of the detector counts."""


def read(request: ReadRequest) -> Iterator[Annotation]:
    """People frame by frame; without request.benchmark_sequences those of the occlusion benchmarks are left out."""
    file = request.folder / json_file(request.split)
    if file.exists():
        yield from _from_json(request, file)
        return
    paths = sequence_files(request.folder, request.split)
    if not paths:
        raise InputError(
            f"neither {file.name} nor sequenceFiles/{request.split}/*.pkl is there",
            where=str(request.folder),
            fix="docs/guide/data.md says where they come from.",
        )
    for path in paths:
        if request.benchmark_sequences or not tested_on(path.stem):
            yield from _from_sequence(request, path)
        else:
            request.dropped["sequences that a benchmark is made of"] += 1


def _from_json(request: ReadRequest, file: Path) -> Iterator[Annotation]:
    refused = set[str]()
    for image in read_images(file, read_json(file, WHERE_FROM)):
        if not request.benchmark_sequences and tested_on(image.sequence):
            refused.add(image.sequence)
            continue
        place = f"3dpw/{image.sequence}/{Path(str(image.row['file_name'])).stem}"
        path, size, K = image.file(request.folder), image.size, image.K
        people: list[Annotation] = []
        for where, row in image.people:
            stored = read_person(row, where)
            person = _person(
                request, f"{place}/{stored.person}", path, size, K, stored.joints, stored.openpose, stored.box
            )
            if person is not None:
                people.append(
                    _fitted(
                        request,
                        person,
                        stored.pose.astype(np.float32),
                        stored.betas,
                        stored.transl,
                        stored.gender,
                    )
                )
        yield from with_neighbours(people)
    request.dropped["sequences that a benchmark is made of"] += len(refused)


def _from_sequence(request: ReadRequest, path: Path) -> Iterator[Annotation]:
    sequence = read_sequence(path)
    if sequence.image_numbers is None or len(sequence.image_numbers) > len(sequence.world_to_camera):
        raise InputError("img_frame_ids is missing or longer than cam_poses", where=str(path))
    size = (
        round(2 * sequence.K[0, 2]),
        round(2 * sequence.K[1, 2]),
    )  # the axis goes through every image's middle
    for row, frame in enumerate(sequence.image_numbers):
        place = f"3dpw/{sequence.name}/image_{frame:05d}"
        file = path_inside(request.folder / IMAGES, f"{sequence.name}/{image_name(frame)}", place)
        people = [
            _of_frame(request, sequence, person, row, f"{place}/{person}", file, size)
            for person in range(len(sequence.genders))
        ]
        yield from with_neighbours([person for person in people if person is not None])


def _of_frame(
    request: ReadRequest, sequence: Sequence, p: int, row: int, record: str, file: Path, size: tuple[int, int]
) -> Annotation | None:
    """Person p in a frame, if its camera is known and a joint lies in the image."""
    if not sequence.campose_valid[p, row]:
        request.dropped["camera not valid"] += 1
        return None
    K, view = sequence.K, sequence.world_to_camera[row]
    rotation, shift = view[:3, :3], view[:3, 3]
    joints = sequence.joints[p, row] @ rotation.T + shift
    pixels = project(joints, K)
    inside = ((pixels >= 0) & (pixels < np.array(size))).all(1) & (joints[:, 2] > 0)
    if not inside.any():
        request.dropped["no joint in the image"] += 1
        return None
    x1, y1, x2, y2 = tight_box(pixels, inside)
    w, h = BOX_ENLARGED * (x2 - x1), BOX_ENLARGED * (y2 - y1)
    box = [(x1 + x2 - w) / 2, (y1 + y2 - h) / 2, w, h]
    person = _person(request, record, file, size, K, joints, sequence.keypoints[p, row], box)
    if person is None:
        return None
    pose, betas, name = turned(rotation, sequence.pose[p, row]), sequence.betas[p], sequence.genders[p]
    if request.bodies is None or not request.bodies.has(name):
        return _fitted(request, person, pose, betas, np.zeros(3), name)
    # The JSON takes the neutral body's root here, which puts the gendered body a little off; we take its own.
    placed = moved(rotation, shift, sequence.transl[p, row], request.bodies.rest_root(betas, name))
    return _fitted(request, person, pose, betas, placed, name)


def _person(
    request: ReadRequest, record: str, file: Path, size: tuple[int, int], K: Array,
    joints: Array, detected: Array, box: Any,
) -> Annotation | None:  # fmt: skip
    """joints: SMPL's 24, metres, camera frame.  detected: OpenPose-18, px and confidence."""
    inside = inside_box(box, size)
    if inside is None:
        request.dropped["no box inside the image"] += 1
        return None
    joints3d, there = to30(joints, SMPL24)
    joints2d, _ = to30(project(joints, K), SMPL24)
    keypoints, _ = to30(detected, OPENPOSE18, middle_pelvis=True)
    keypoints[keypoints[:, 2] <= DETECTED] = 0
    return Annotation(
        record, file, size, inside, K, joints2d, there,
        joints3d=joints3d, joints3d_valid=there, detected=keypoints, annotated=corners(box),
    )  # fmt: skip


def _fitted(
    request: ReadRequest,
    person: Annotation,
    pose: Array32,
    betas: Array,
    transl: Array | Array32,
    name: Gender,
) -> Annotation:
    """With the pose, and with the mesh's joints where the gendered body was imported."""
    if request.bodies is not None and request.bodies.has(name):
        return request.bodies.attach(person, pose, betas, transl, gender=name)
    request.dropped[f"mesh joints without the {name} body (pose and joints are kept)"] += 1
    return replace(person, pose=pose, pose_valid=POSE_KNOWN)
