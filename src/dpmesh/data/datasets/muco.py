"""MuCo-3DHP with SMPLify-X fits.

MuCo/{augmented_set,unaugmented_set,MuCo-3DHP.json,smpl_param.json}; in 3DCrowdNet's layout all that is in
MuCo/data/. Joints are in millimetres, fits in metres, both before the camera.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (JSON has no types)

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dpmesh.data.annotation import Annotation, corners, inside_box, to30, with_neighbours
from dpmesh.data.datasets.files import WHERE_FROM, ReadRequest, by_image, listed
from dpmesh.fields import camera_of, numbers, read_json
from dpmesh.geometry.camera import project
from dpmesh.io import path_inside
from dpmesh.skeletons import MUCO21


def read(request: ReadRequest) -> Iterator[Annotation]:
    """The nearest person of every image (smallest depth of the pelvis); the others are its neighbours."""
    folder = request.folder
    if not (folder / "MuCo-3DHP.json").exists() and (folder / "data").is_dir():
        folder = folder / "data"
    images, annotations = listed(folder / "MuCo-3DHP.json", "images", "annotations")
    fits: Mapping[str, Any] = (
        read_json(folder / "smpl_param.json", WHERE_FROM) if request.bodies is not None else {}
    )
    people_of = by_image(annotations)
    for image in images:
        annotated = people_of.get(int(image["id"]), [])
        where = f"{folder / 'MuCo-3DHP.json'}, image {image['id']}"
        people = [_person(folder, image, annotation, where) for annotation in annotated]
        kept = [(a, p) for a, p in zip(annotated, people, strict=True) if p is not None]
        request.dropped["no box inside the image"] += len(annotated) - len(kept)
        if not kept:
            continue
        nearest = min(range(len(kept)), key=lambda k: kept[k][1].joints3d[0, 2])
        request.dropped["behind the nearest person of the image"] += len(kept) - 1
        person = with_neighbours([p for _, p in kept])[nearest]
        yield _fitted(request, person, fits.get(str(kept[nearest][0]["id"])), where)


def _person(folder: Path, image: Any, annotation: Any, where: str) -> Annotation | None:
    size = (int(image["width"]), int(image["height"]))
    box = inside_box(annotation["bbox"], size)
    if box is None:
        return None
    K = camera_of(image["f"], image["c"], where)
    joints = (
        numbers(
            annotation["keypoints_cam"],
            (
                21,
                3,
            ),
            where=where,
        )
        / 1000
    )  # mm -> m
    joints3d, there = to30(joints, MUCO21)
    # keypoints_img are these, projected; projecting again keeps 2D and 3D one thing.
    joints2d, _ = to30(project(joints, K), MUCO21)
    return Annotation(
        f"muco/{image['id']}/{annotation['id']}", path_inside(folder, str(image["file_name"]), where), size, box, K,
        joints2d, there, joints3d=joints3d, joints3d_valid=there, annotated=corners(annotation["bbox"]),
    )  # fmt: skip


def _fitted(request: ReadRequest, person: Annotation, fit: Any, where: str) -> Annotation:
    if request.bodies is None or fit is None:
        request.dropped["fit missing or not asked for (the person is kept)"] += 1
        return person
    fitted = request.bodies.attach(
        person, numbers(fit["pose"], (24, 3,), where=where), numbers(fit["shape"], (10,), where=where),
        numbers(fit["trans"], (3,), where=where), check=MUCO21,
    )  # fmt: skip
    if not fitted.fit_valid:
        request.dropped["fit more than 25 mm off (the person is kept)"] += 1
    return fitted
