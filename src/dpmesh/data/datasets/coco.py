"""MSCOCO 2017 people with NeuralAnnot's fits.

MSCOCO/images/{train2017,val2017}/*.jpg, MSCOCO/annotations/person_keypoints_{train2017,val2017}.json and
MSCOCO_train_SMPL_NeuralAnnot.json. Fits are in metres before a camera of their own, one for each person.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (JSON has no types)

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dpmesh.data.annotation import Annotation, corners, inside_box, to30, with_neighbours
from dpmesh.data.datasets.files import WHERE_FROM, Array, ReadRequest, by_image, listed
from dpmesh.fields import camera_of, numbers, read_json
from dpmesh.geometry.camera import intrinsics
from dpmesh.io import path_inside
from dpmesh.skeletons import COCO17, Skeleton

YEARS = {"train": "train2017", "validation": "val2017"}


def read(request: ReadRequest) -> Iterator[Annotation]:
    """People with at least one keypoint who are no crowd."""
    year, folder = YEARS[request.split], request.folder / "annotations"
    images, annotations = listed(folder / f"person_keypoints_{year}.json", "images", "annotations")
    people_of = by_image(annotations)
    fits = fits_of(request, folder / "MSCOCO_train_SMPL_NeuralAnnot.json")
    for image in images:
        name = str(image["file_name"])
        where = f"{folder}, image {image['id']}"
        file = path_inside(request.folder / "images", name if "/" in name else f"{year}/{name}", where)
        size = (int(image["width"]), int(image["height"]))
        kept: list[Mapping[str, Any]] = []
        for annotation in people_of.get(int(image["id"]), []):
            crowd = bool(annotation.get("iscrowd")) or not annotation.get("num_keypoints")
            request.dropped["a crowd, or without keypoints"] += crowd
            if not crowd:
                kept.append(annotation)
        yield from people_of_image(request, f"coco/{image['id']}", file, size, kept, COCO17, fits)


def fits_of(request: ReadRequest, path: Path) -> Mapping[str, Any]:
    """NeuralAnnot's fits by annotation id; they exist for training people only."""
    return read_json(path, WHERE_FROM) if request.bodies is not None and request.split == "train" else {}


def people_of_image(
    request: ReadRequest,
    place: str,
    file: Path,
    size: tuple[int, int],
    annotations: Sequence[Mapping[str, Any]],
    joints: Skeleton,
    fits: Mapping[str, Any],
    keep_fit: Callable[[Mapping[str, Any]], bool] = lambda fit: True,
) -> Iterator[Annotation]:
    """Persons of one image of a 2D set (also CrowdPose's). A keypoint is annotated where its third number is > 0.

    Pelvis is the middle of the hips. Without a fit the camera is assumed: focal length the image's diagonal.
    """
    people: list[Annotation] = []
    fit_of: list[Any] = []
    for annotation in annotations:
        box = inside_box(annotation["bbox"], size)
        if box is None:
            request.dropped["no box inside the image"] += 1
            continue
        where = f"{place}, annotation {annotation['id']}"
        points = numbers(
            annotation["keypoints"],
            (
                len(joints),
                3,
            ),
            where=where,
        )
        rows, there = to30(_flagged(points), joints, middle_pelvis=True)
        valid = there * (rows[:, 2] > 0)
        hidden = to30(points, joints)[0][:, 2] == 1  # COCO: 1 labelled and hidden, 2 labelled and visible
        people.append(
            Annotation(
                f"{place}/{annotation['id']}", file, size, box,
                intrinsics(float(np.hypot(*size)), (size[1], size[0])),
                rows[:, :2] * valid[:, None], valid.astype(np.float32),
                joint_clear=(~hidden).astype(np.float32), middle_pelvis=True,
                annotated=corners(annotation["bbox"]),
            )
        )  # fmt: skip
        fit_of.append(fits.get(str(annotation["id"])))
    for person, fit in zip(with_neighbours(people), fit_of, strict=True):
        if request.bodies is None or fit is None:
            request.dropped["fit missing or not asked for (the person is kept)"] += 1
            yield person
        elif not keep_fit(fit):
            request.dropped["fit refused by fit_err (the person is kept)"] += 1
            yield person
        else:
            yield _fitted(request, person, fit)


def _flagged(points: Array) -> Array:
    """The third column as 0 or 1."""
    return np.concatenate([points[:, :2], (points[:, 2:] > 0).astype(np.float64)], 1)


def _fitted(request: ReadRequest, person: Annotation, fit: Mapping[str, Any]) -> Annotation:
    assert request.bodies is not None
    smpl, lens = fit["smpl_param"], fit["cam_param"]
    person = replace(person, K=camera_of(lens["focal"], lens["princpt"], person.record_id))
    return request.bodies.attach(
        person,
        numbers(
            smpl["pose"],
            (
                24,
                3,
            ),
            where=person.record_id,
        ),
        numbers(smpl["shape"], (10,), where=person.record_id),
        numbers(smpl["trans"], (3,), where=person.record_id),
    )
