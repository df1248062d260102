"""3DPW for an optional fine-tuning: 3DCrowdNet's JSON, or the official sequence files (datasets.md, 7.1).

3DPW/ or PW3D/data/: 3DPW_latest_{train,validation}.json, or sequenceFiles/{train,validation}/*.pkl; the pictures
are imageFiles/SEQUENCE/image_NNNNN.jpg. Bodies are gendered: pose and joints are the truth, betas are another
model's than the neutral one and are not taught. The input is the set's own OpenPose detection.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (JSON and pickles have no types)

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dpmesh.body.unpickle import load_pickle
from dpmesh.data.annotation import (
    Array32,
    Person,
    corners,
    inside_box,
    invertible,
    tight_box,
    to30,
    with_neighbours,
)
from dpmesh.data.datasets.files import Array, Reading, by_image, camera, listed, numbers
from dpmesh.data.datasets.threedpw_subsets import tested_on
from dpmesh.data.fits import POSE_KNOWN, moved, turned
from dpmesh.errors import InputError
from dpmesh.geometry.camera import project
from dpmesh.io import path_inside
from dpmesh.skeletons import OPENPOSE18, SMPL24

DETECTED = 0.05
"""Confidence above which a joint of the detector counts."""


def read(asked: Reading) -> Iterator[Person]:
    """People frame by frame; sequences that a benchmark is made of are left out unless asked for."""
    file = asked.folder / f"3DPW_latest_{asked.split}.json"
    if file.exists():
        yield from _from_json(asked, file)
        return
    pickles = sorted((asked.folder / "sequenceFiles" / asked.split).glob("*.pkl"))
    if not pickles:
        raise InputError(
            f"neither {file.name} nor sequenceFiles/{asked.split}/*.pkl is there",
            where=str(asked.folder),
            fix="docs/data.md says where they come from.",
        )
    for pickle in pickles:
        if asked.benchmark_sequences or not tested_on(pickle.stem):
            yield from _from_pickle(asked, pickle)
        else:
            asked.dropped["sequences that a benchmark is made of"] += 1


def _from_json(asked: Reading, file: Path) -> Iterator[Person]:
    images, annotations = listed(file, "images", "annotations")
    people_of, refused = by_image(annotations), set[str]()
    for image in images:
        sequence = str(image["sequence"])
        if not asked.benchmark_sequences and tested_on(sequence):
            refused.add(sequence)
            continue
        place = f"3dpw/{sequence}/{Path(str(image['file_name'])).stem}"
        picture = path_inside(asked.folder / "imageFiles", f"{sequence}/{image['file_name']}", place)
        size, lens = (int(image["width"]), int(image["height"])), image["cam_param"]
        K = camera(lens["focal"], lens["princpt"], place)
        people: list[Person] = []
        for annotation in people_of.get(int(image["id"]), []):
            where = f"{place}, annotation {annotation['id']}"
            person = _person(
                asked, f"{place}/{annotation['person_id']}", picture, size, K,
                numbers(annotation["joint_cam"], 24, 3, where=where),
                numbers(annotation["openpose_result"], 18, 3, where=where), annotation["bbox"],
            )  # fmt: skip
            if person is not None:
                smpl = annotation["smpl_param"]
                pose = numbers(smpl["pose"], 24, 3, where=where).astype(np.float32)
                betas, transl = (numbers(smpl[k], n, where=where) for k, n in (("shape", 10), ("trans", 3)))
                people.append(_fitted(asked, person, pose, betas, transl, _gender(smpl["gender"])))
        yield from with_neighbours(people)
    asked.dropped["sequences that a benchmark is made of"] += len(refused)


def _from_pickle(asked: Reading, path: Path) -> Iterator[Person]:
    raw: Any = load_pickle(path)
    try:
        sequence, count = str(raw["sequence"]), len(raw["genders"])
        K = numbers(raw["cam_intrinsics"], 3, 3, where=str(path))
        if not invertible(K):
            raise InputError("cam_intrinsics cannot be inverted", where=str(path))
        views = numbers(raw["cam_poses"], -1, 4, 4, where=str(path))
        frames = [int(f) for f in raw["img_frame_ids"]]
        size = (round(2 * K[0, 2]), round(2 * K[1, 2]))  # the axis goes through the middle of every picture
        for i, frame in enumerate(frames):
            place = f"3dpw/{sequence}/image_{frame:05d}"
            picture = path_inside(asked.folder / "imageFiles", f"{sequence}/image_{frame:05d}.jpg", place)
            people = [
                _of_frame(asked, raw, p, i, f"{place}/{p}", picture, size, K, views[i]) for p in range(count)
            ]
            yield from with_neighbours([person for person in people if person is not None])
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(f"a field of the sequence is missing or short ({error})", where=str(path)) from error


def _of_frame(
    asked: Reading, raw: Mapping[str, Any], p: int, i: int, record: str,
    picture: Path, size: tuple[int, int], K: Array, view: Array,
) -> Person | None:  # fmt: skip
    """Person p in frame i, if its camera is known and a joint lies in the picture."""
    if not raw["campose_valid"][p][i]:
        asked.dropped["camera not valid"] += 1
        return None
    rotation, shift = view[:3, :3], view[:3, 3]
    joints = numbers(raw["jointPositions"][p][i], 24, 3, where=record) @ rotation.T + shift
    pixels = project(joints, K)
    shown = ((pixels >= 0) & (pixels < np.array(size))).all(1) & (joints[:, 2] > 0)
    if not shown.any():
        asked.dropped["no joint in the picture"] += 1
        return None
    x1, y1, x2, y2 = tight_box(pixels, shown)
    w, h = 1.2 * (x2 - x1), 1.2 * (y2 - y1)
    box = [(x1 + x2 - w) / 2, (y1 + y2 - h) / 2, w, h]
    detected = numbers(raw["poses2d"][p][i], 3, 18, where=record).T
    person = _person(asked, record, picture, size, K, joints, detected, box)
    if person is None:
        return None
    pose, betas = (
        numbers(raw["poses"][p][i], 24, 3, where=record),
        numbers(raw["betas"][p][:10], 10, where=record),
    )
    gender = _gender(raw["genders"][p])
    if asked.bodies is None or not asked.bodies.has(gender):
        return _fitted(asked, person, turned(rotation, pose), betas, np.zeros(3), gender)
    transl = numbers(raw["trans"][p][i], 3, where=record)
    # The JSON takes the neutral body's root here, which puts the gendered body a little off; we take its own.
    placed = moved(rotation, shift, transl, asked.bodies.rest_root(betas, gender))
    return _fitted(asked, person, turned(rotation, pose), betas, placed, gender)


def _person(
    asked: Reading, record: str, picture: Path, size: tuple[int, int], K: Array,
    joints: Array, detected: Array, box: Any,
) -> Person | None:  # fmt: skip
    """joints: SMPL's 24, metres before the camera.  detected: OpenPose-18, px and confidence."""
    inside = inside_box(box, size)
    if inside is None:
        asked.dropped["no box inside the image"] += 1
        return None
    joints3d, there = to30(joints, SMPL24)
    joints2d, _ = to30(project(joints, K), SMPL24)
    given, _ = to30(detected, OPENPOSE18, middle_pelvis=True)
    given[given[:, 2] <= DETECTED] = 0
    return Person(
        record, picture, size, inside, K, joints2d, there,
        joints3d=joints3d, joints3d_valid=there, given=given, annotated=corners(box),
    )  # fmt: skip


def _fitted(
    asked: Reading,
    person: Person,
    pose: Array32,
    betas: Array,
    transl: Array | Array32,
    gender: str,
) -> Person:
    """Pose always; the mesh's joints only where the gendered body is there."""
    if asked.bodies is not None and asked.bodies.has(gender):
        return asked.bodies.attach(person, pose, betas, transl, gender=gender)
    asked.dropped[f"mesh joints without the {gender} body (pose and joints are kept)"] += 1
    return replace(person, pose=pose, pose_valid=POSE_KNOWN)


def _gender(word: Any) -> str:
    letter = str(word)[:1].lower()
    if letter not in ("m", "f"):
        raise InputError(f"gender {word!r} is neither male nor female")
    return "male" if letter == "m" else "female"
