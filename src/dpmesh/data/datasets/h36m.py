"""Human3.6M in the layout of 3DCrowdNet, JOTR and DPMesh, with SMPLify-X fits.

Human36M/images/FILE_NAME, Human36M/annotations/Human36M_subject{S}_{data,camera,joint_3d,smpl_param}.json.
Joints are in millimetres in the world, fits in metres in the world, cameras in millimetres.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (JSON has no types)

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpmesh.data.annotation import Annotation, corners, inside_box, to30
from dpmesh.data.datasets.files import WHERE_FROM, Array, ReadRequest, listed
from dpmesh.data.fits import moved, turned
from dpmesh.fields import camera_of, numbers, read_json
from dpmesh.geometry.camera import project
from dpmesh.io import path_inside
from dpmesh.skeletons import H36M17

SUBJECTS = {"train": (1, 5, 6, 7, 8)}  # 9 and 11 are the test subjects
EVERY = 5
"""Every fifth frame is used; fits exist for no other."""


def read(request: ReadRequest) -> Iterator[Annotation]:
    """People of the training subjects, image by image."""
    folder = request.folder / "annotations"
    exists = False
    for subject in SUBJECTS[request.split]:
        start = folder / f"Human36M_subject{subject}_"
        if Path(f"{start}data.json").exists():  # part of the subjects is as good as all
            exists = True
            yield from _subject(request, str(start))
        else:
            request.dropped[f"subject {subject}: no annotations"] += 1
    if not exists:
        read_json(folder / f"Human36M_subject{SUBJECTS[request.split][0]}_data.json", WHERE_FROM)  # raises


def _subject(request: ReadRequest, start: str) -> Iterator[Annotation]:
    images, annotations = listed(Path(f"{start}data.json"), "images", "annotations")
    cameras, joints = (
        read_json(Path(f"{start}camera.json"), WHERE_FROM),
        read_json(Path(f"{start}joint_3d.json"), WHERE_FROM),
    )
    fits = read_json(Path(f"{start}smpl_param.json"), WHERE_FROM) if request.bodies is not None else {}
    image_of = {int(image["id"]): image for image in images}
    for annotation in annotations:
        image = image_of[int(annotation["image_id"])]
        if int(image["frame_idx"]) % EVERY:
            request.dropped["not a fifth frame"] += 1
            continue
        action, part, frame = (str(image[key]) for key in ("action_idx", "subaction_idx", "frame_idx"))
        view, where = cameras[str(image["cam_idx"])], f"{start}data.json, image {image['id']}"
        try:
            world = numbers(
                joints[action][part][frame],
                (
                    17,
                    3,
                ),
                where=where,
            )
        except KeyError:
            request.dropped["no 3D joints"] += 1
            continue
        person = _person(request, image, annotation, view, world, where)
        if person is None:
            request.dropped["no box inside the image"] += 1
            continue
        fit = fits.get(action, {}).get(part, {}).get(frame)
        yield _fitted(request, person, fit, view, where)


def _person(
    request: ReadRequest, image: Any, annotation: Any, view: Any, world: Array, where: str
) -> Annotation | None:
    size = (int(image["width"]), int(image["height"]))
    box = inside_box(annotation["bbox"], size)
    if box is None:
        return None
    rotation, shift = (
        numbers(
            view["R"],
            (
                3,
                3,
            ),
            where=where,
        ),
        numbers(view["t"], (3,), where=where),
    )
    joints = (world @ rotation.T + shift) / 1000  # mm in the world -> m in the camera frame
    K = camera_of(view["f"], view["c"], where)
    joints3d, there = to30(joints, H36M17)
    joints2d, _ = to30(project(joints, K), H36M17)
    name = str(image["file_name"])
    file = path_inside(request.folder / "images", name, where)
    return Annotation(
        f"h36m/{Path(name).with_suffix('')}", file, size, box, K,
        joints2d, there, joints3d=joints3d, joints3d_valid=there, annotated=corners(annotation["bbox"]),
    )  # fmt: skip


def _fitted(request: ReadRequest, person: Annotation, fit: Any, view: Any, where: str) -> Annotation:
    if request.bodies is None or fit is None:
        request.dropped["fit missing or not asked for (the person is kept)"] += 1
        return person
    rotation, shift = (
        numbers(
            view["R"],
            (
                3,
                3,
            ),
            where=where,
        ),
        numbers(view["t"], (3,), where=where) / 1000,
    )
    pose, betas = (
        numbers(
            fit["pose"],
            (
                24,
                3,
            ),
            where=where,
        ),
        numbers(fit["shape"], (10,), where=where),
    )
    root = request.bodies.rest_root(betas)
    transl = moved(rotation, shift, numbers(fit["trans"], (3,), where=where), root)
    fitted = request.bodies.attach(person, turned(rotation, pose), betas, transl, check=H36M17)
    if not fitted.fit_valid:
        request.dropped["fit more than 25 mm off (the person is kept)"] += 1
    return fitted
