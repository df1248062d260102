"""3DPW's JSON files of 3DCrowdNet, JOTR and DPMesh (`3DPW_latest_{split}.json` and others), in COCO's style.

They are already filtered (Pose2Mesh's rule: `campose_valid`, a joint inside the image) and in the camera frame.
Training and evaluation read them here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from dpmesh.data.datasets.threedpw import IMAGES, Gender, gender
from dpmesh.errors import InputError
from dpmesh.fields import betas, camera_of, entry, numbers, read_json, rows, whole
from dpmesh.io import path_inside

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class JsonImage:
    """An image: its row in the file, the rows of its people, and where both are, for messages."""

    row: Any
    where: str
    sequence: str
    frame: int
    people: list[tuple[str, Any]]

    def file(self, folder: Path) -> Path:
        """The image's path below the set's folder. Raises InputError for a name that leads out of it."""
        name = f"{self.sequence}/{entry(self.row, 'file_name', self.where)}"
        return path_inside(folder / IMAGES, name, f"{self.where}.file_name")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        width, height = (
            whole(entry(self.row, side, self.where), f"{self.where}.{side}", low=1)
            for side in ("width", "height")
        )
        return width, height

    @property
    def K(self) -> Float64[Array, "3 3"]:
        """The camera, px."""
        where = f"{self.where}.cam_param"
        lens = entry(self.row, "cam_param", self.where)
        return camera_of(entry(lens, "focal", where), entry(lens, "princpt", where), where)


@dataclass(frozen=True, eq=False)
class JsonPerson:
    """A person of an image: metres, camera frame, axis-angle, px.

    joints: SMPL's 24. openpose: OpenPose-18, x y confidence. box: x y width height.
    """

    annotation: str
    person: int
    box: Float64[Array, "4"]
    openpose: Float64[Array, "18 3"]
    joints: Float64[Array, "24 3"]
    gender: Gender
    pose: Float64[Array, "24 3"]
    betas: Float64[Array, "10"]
    transl: Float64[Array, "3"]


def read_images(path: Path, content: Any = None) -> Iterator[JsonImage]:
    """The file's images in order, with the rows of their people. Raises InputError."""
    content = read_json(path) if content is None else content
    people: dict[Any, list[tuple[str, Any]]] = {}
    images = rows(content, "images", str(path))
    for i, row in enumerate(images):
        people[entry(row, "id", f"{path}: images[{i}]")] = []
    for i, row in enumerate(rows(content, "annotations", str(path))):
        where = f"{path}: annotations[{i}]"
        number = entry(row, "image_id", where)
        if number not in people:
            raise InputError(f"image_id {number} is not among the images", where=where)
        people[number].append((where, row))
    for i, row in enumerate(images):
        where = f"{path}: images[{i}]"
        sequence = str(entry(row, "sequence", where))
        frame = whole(entry(row, "frame_idx", where), f"{where}.frame_idx", high=10**6)
        yield JsonImage(row, where, sequence, frame, people[row["id"]])


def read_person(row: Any, where: str) -> JsonPerson:
    """The person of an annotation. Raises InputError."""
    fit, fields = entry(row, "smpl_param", where), f"{where}.smpl_param"
    return JsonPerson(
        annotation=str(entry(row, "id", where)),
        person=whole(entry(row, "person_id", where), f"{where}.person_id", high=10**6),
        box=numbers(entry(row, "bbox", where), (4,), f"{where}.bbox"),
        openpose=numbers(entry(row, "openpose_result", where), (18, 3), f"{where}.openpose_result"),
        joints=numbers(entry(row, "joint_cam", where), (24, 3), f"{where}.joint_cam"),
        gender=gender(entry(fit, "gender", fields), fields),
        pose=numbers(entry(fit, "pose", fields), (72,), f"{fields}.pose").reshape(24, 3),
        betas=betas(entry(fit, "shape", fields), f"{fields}.shape"),
        transl=numbers(entry(fit, "trans", fields), (3,), f"{fields}.trans"),
    )
