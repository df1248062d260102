"""3DPW: the official sequence files, and training people from them or from 3DCrowdNet's JSON.

3DPW/ or PW3D/data/: 3DPW_latest_{train,validation}.json, or sequenceFiles/{train,validation}/*.pkl; the images are
imageFiles/SEQUENCE/image_NNNNN.jpg. Bodies are gendered: training takes pose and joints from them,
and not betas, which are of another model than the neutral one. The input is the set's own OpenPose detection.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (JSON and pickles have no types)

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray

from dpmesh.body.unpickle import load_pickle
from dpmesh.data.annotation import (
    Annotation,
    Array32,
    corners,
    inside_box,
    invertible,
    tight_box,
    to30,
    with_neighbours,
)
from dpmesh.data.datasets.files import Array, ReadRequest, by_image, camera, listed, numbers
from dpmesh.data.fits import POSE_KNOWN, moved, turned
from dpmesh.errors import InputError
from dpmesh.geometry.camera import project
from dpmesh.io import path_inside
from dpmesh.skeletons import OPENPOSE18, SMPL24

Gender = Literal["male", "female"]

IMAGES = "imageFiles"
"""Folder of the images, one folder a sequence."""
BOX_ENLARGED = 1.2
"""Factor on the box around the joints inside the image, as in the JSON files."""
DETECTED = 0.05
"""Confidence above which a joint of the detector counts."""

# Which sequences the occlusion benchmarks are made of: evaluation selects them, training leaves them out. Sources:
# 3DPW-OC (Zhang et al., CVPR 2020), 3DPW-PC (Sun et al., ICCV 2021), 3DPW-Crowd (Choi et al., CVPR 2022).

OC_FAMILIES = (
    "courtyard_backpack", "courtyard_basketball", "courtyard_bodyScannerMotions", "courtyard_box", "courtyard_golf",
    "courtyard_jacket", "courtyard_laceShoe", "downtown_stairs", "flat_guitar", "flat_packBags", "outdoors_climbing",
    "outdoors_crosscountry", "outdoors_fencing", "outdoors_freestyle", "outdoors_golf", "outdoors_parcours",
    "outdoors_slalom",
)  # fmt: skip
"""Names of sequences without their number."""

PC_FRAMES = (
    ("courtyard_basketball_00", 200, 280), ("courtyard_captureSelfies_00", 500, 600), ("courtyard_dancing_00", 60, 370),
    ("courtyard_dancing_01", 60, 270), ("courtyard_hug_00", 100, 500), ("downtown_bus_00", 1620, 1900),
)  # fmt: skip
"""Sequence, first frame, end (exclusive)."""

CROWD_SEQUENCES = ("courtyard_hug_00", "courtyard_dancing_00")


def tested_on(sequence: str) -> bool:
    """Whether the sequence, of whatever split, is part of 3DPW-OC, 3DPW-PC or 3DPW-Crowd."""
    whole = (*CROWD_SEQUENCES, *(name for name, *_ in PC_FRAMES))
    return sequence.rpartition("_")[0] in OC_FAMILIES or sequence in whole


# The official sequence files (Python 2 pickles).


@dataclass(frozen=True, eq=False)
class Sequence:
    """A sequence file: p people in f frames at 30 Hz; world frame, metres, axis-angle, pixels.

    name: as stored.  K: camera of every image.  world_to_camera: of each frame.  campose_valid: where that is right.
    keypoints: OpenPose-18, x y confidence.  image_numbers: of each frame; None where the file has none.
    """

    name: str
    K: Float64[Array, "3 3"]
    world_to_camera: Float64[Array, "f 4 4"]
    genders: tuple[Gender, ...]
    pose: Float64[Array, "p f 24 3"]
    transl: Float64[Array, "p f 3"]
    betas: Float64[Array, "p 10"]
    joints: Float64[Array, "p f 24 3"]
    keypoints: Float64[Array, "p f 18 3"]
    campose_valid: Bool[NDArray[np.bool_], "p f"]
    image_numbers: tuple[int, ...] | None


def sequence_files(folder: Path, split: str) -> list[Path]:
    """The split's sequence files in order; [] without any."""
    return sorted((folder / "sequenceFiles" / split).glob("*.pkl"))


def json_file(split: str) -> str:
    """3DCrowdNet's annotations of a split, in COCO's style."""
    return f"3DPW_latest_{split}.json"


def image_name(frame: int) -> str:
    """File name of an image in its sequence's folder."""
    return f"image_{frame:05d}.jpg"


def read_sequence(path: Path) -> Sequence:
    """A sequence file, all shapes and numbers checked. Raises InputError."""
    raw, where = cast("Any", load_pickle(path)), str(path)
    if not isinstance(raw, dict):
        raise InputError("not a dictionary", where=where, fix="This is not the set's file.")
    try:
        K = numbers(raw["cam_intrinsics"], 3, 3, where=f"{where}: cam_intrinsics")
        if not invertible(K):
            raise InputError("cam_intrinsics cannot be inverted", where=where)
        cameras = numbers(raw["cam_poses"], -1, 4, 4, where=f"{where}: cam_poses")
        genders: tuple[Gender, ...] = tuple(gender(word, where) for word in raw["genders"])
        frames = len(cameras)

        def people(name: str, *shape: int) -> Array:
            values = [
                numbers(raw[name][p], *shape, where=f"{where}: {name}[{p}]") for p in range(len(genders))
            ]
            return np.array(values).reshape(len(genders), *shape)

        shapes = [np.ravel(np.asarray(raw["betas"][p]))[:10] for p in range(len(genders))]
        return Sequence(
            name=str(raw["sequence"]) if "sequence" in raw else path.stem,
            K=K,
            world_to_camera=cameras,
            genders=genders,
            pose=people("poses", frames, 24, 3),
            transl=people("trans", frames, 3),
            betas=np.array([numbers(b, 10, where=f"{where}: betas[{p}]") for p, b in enumerate(shapes)]),
            joints=people("jointPositions", frames, 24, 3),
            keypoints=people("poses2d", frames, 3, 18).transpose(0, 1, 3, 2),
            campose_valid=people("campose_valid", frames) != 0,
            image_numbers=tuple(int(n) for n in raw["img_frame_ids"]) if "img_frame_ids" in raw else None,
        )
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        raise InputError(
            f"a field of the sequence is missing or has a wrong value ({line})",
            where=where,
            fix="Download the files again.",
        ) from None


def gender(word: Any, where: str) -> Gender:
    """The gender that a file names m, f, male or female. Raises InputError."""
    genders: dict[str, Gender] = {"m": "male", "f": "female", "male": "male", "female": "female"}
    if (name := genders.get(str(word).lower())) is None:
        raise InputError(f"gender {word!r} is neither male nor female", where=where)
    return name


# People of training.


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
    images, annotations = listed(file, "images", "annotations")
    people_of, refused = by_image(annotations), set[str]()
    for image in images:
        sequence = str(image["sequence"])
        if not request.benchmark_sequences and tested_on(sequence):
            refused.add(sequence)
            continue
        place = f"3dpw/{sequence}/{Path(str(image['file_name'])).stem}"
        file = path_inside(request.folder / IMAGES, f"{sequence}/{image['file_name']}", place)
        size, lens = (int(image["width"]), int(image["height"])), image["cam_param"]
        K = camera(lens["focal"], lens["princpt"], place)
        people: list[Annotation] = []
        for annotation in people_of.get(int(image["id"]), []):
            where = f"{place}, annotation {annotation['id']}"
            person = _person(
                request, f"{place}/{annotation['person_id']}", file, size, K,
                numbers(annotation["joint_cam"], 24, 3, where=where),
                numbers(annotation["openpose_result"], 18, 3, where=where), annotation["bbox"],
            )  # fmt: skip
            if person is not None:
                smpl = annotation["smpl_param"]
                pose = numbers(smpl["pose"], 24, 3, where=where).astype(np.float32)
                betas, transl = (numbers(smpl[k], n, where=where) for k, n in (("shape", 10), ("trans", 3)))
                people.append(_fitted(request, person, pose, betas, transl, gender(smpl["gender"], where)))
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
