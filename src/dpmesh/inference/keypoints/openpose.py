"""OpenPose's layout and its derivatives: Pose2Sim, AlphaPose, ComfyUI, sd-webui, 3DCrowdNet."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Float64

from dpmesh.errors import InputError
from dpmesh.inference.keypoints.coco import result_person
from dpmesh.inference.keypoints.raw import (
    OPENPOSE_COUNTS,
    FileImage,
    FilePerson,
    Format,
    Row,
    keys_of,
    listed,
    mapping,
    number,
    points_of,
    rows_of,
)
from dpmesh.skeletons import (
    COCO17,
    OPENPOSE25,
    OPENPOSE25B,
    Skeleton,
)


def _canvas(content: Mapping[str, Any], *names: str) -> tuple[float, float] | None:
    width, height = (number(content.get(name)) for name in names)
    return (width, height) if width > 0 and height > 0 else None


def openpose_reader(
    rows: Sequence[Row], allowed: Sequence[Skeleton], key: str
) -> Callable[[Any], FilePerson]:
    if len(allowed) > 1 and _is_25b([row for _, row in rows], key):
        allowed = tuple(OPENPOSE25B if joints is OPENPOSE25 else joints for joints in allowed)

    def read(row: Any) -> FilePerson:
        if key not in (person := mapping(row)):
            raise InputError(f"the field {key} is missing")
        value = person[key]
        if value in (None, []):
            return FilePerson(np.zeros((len(COCO17), 3)), COCO17, skip="empty")
        return FilePerson(*points_of(value, allowed))

    return read


def _is_25b(rows: Sequence[Any], key: str) -> bool:
    """Whether persons of 25 joints are in BODY_25B's order, decided over all people of the file.

    BODY_25 has neck and mid hip between shoulders and hips, visible where both are. Raises InputError where neither
    order fits.
    """
    fits: list[tuple[bool, bool]] = []
    for row in rows[:2000]:
        value = row.get(key) if isinstance(row, Mapping) else None
        if not isinstance(value, list) or len(cast("list[Any]", value)) != 75:
            continue
        points, _ = points_of(value, (OPENPOSE25,))
        fits.append((_fits(points, OPENPOSE25, "Neck"), _fits(points, OPENPOSE25B, "Upper_neck")))
    as_25, as_25b = (sum(fit[i] for fit in fits) for i in range(2))
    if not fits or as_25 >= max(as_25b, 1):
        return False
    if as_25b > as_25:
        return True
    raise InputError(
        "75 numbers, but in neither BODY_25's nor BODY_25B's order (no neck between the shoulders)",
        fix="Name the order: --keypoint-format body_25 or body_25b.",
    )


def _fits(points: Float64[np.ndarray, "25 3"], joints: Skeleton, neck: str) -> bool:
    """Whether the neck lies between the shoulders, and mid hip, where there is one, between the hips."""
    visible = points[:, 2] > 0
    if not visible.any():
        return True
    extent = float(np.ptp(points[visible, :2], axis=0).max()) or 1.0

    def between(middle: str, left: str, right: str) -> bool:
        m, a, b = (joints.index(name) for name in (middle, left, right))
        if not (visible[a] and visible[b]):
            return True
        off = np.linalg.norm(points[m, :2] - (points[a, :2] + points[b, :2]) / 2)
        return bool(visible[m] and off < 0.25 * extent)

    hips = "Pelvis" not in joints.joints or between("Pelvis", "L_Hip", "R_Hip")
    return hips and between(neck, "L_Shoulder", "R_Shoulder")


def openpose(content: Any, form: Format) -> list[FileImage]:
    rows = rows_of(content["people"], "people")
    canvas = _canvas(content, "canvas_width", "canvas_height")
    return [FileImage((), rows, openpose_reader(rows, form.joints, "pose_keypoints_2d"), canvas)]


def frames(content: Any, form: Format) -> list[FileImage]:
    """A list of OpenPose's objects, one per frame (ComfyUI)."""
    return [image for frame in content for image in openpose(mapping(frame), form)]


def editor(content: Any, form: Format) -> list[FileImage]:
    flat = listed(content["keypoints"], "keypoints")
    size = len(form.joints[0])
    if len(flat) % size:
        raise InputError(f"{len(flat)} points are not a multiple of {size}")
    people = [flat[i : i + size] for i in range(0, len(flat), size)]

    def read(row: Any) -> FilePerson:
        points, joints = points_of(row, form.joints)
        return FilePerson(np.c_[points[:, :2], np.ones(len(points))], joints)

    return [FileImage((), rows_of(people, "people"), read, _canvas(content, "width", "height"))]


def is_alphapose(content: Any) -> bool:
    return isinstance(content, Mapping) and bool({"bodies", "people"} & keys_of(content))


def by_image(content: Any, form: Format) -> list[FileImage]:
    """A dictionary by image: AlphaPose's cmu and open, 3DCrowdNet's lists of people, COCO rows."""
    images: list[FileImage] = []
    for name, value in content.items():
        if is_alphapose(value):
            images.append(bodies(value, form, (str(name),)))
            continue
        rows = rows_of(value, str(name))

        def read(row: Any) -> FilePerson:
            if isinstance(row, Mapping):
                return result_person(row, form.joints)
            return FilePerson(*points_of(row, form.joints))

        images.append(FileImage((str(name),), rows, read))
    return images


def bodies(content: Any, form: Format, labels: tuple[str, ...] = ()) -> FileImage:
    name, key = ("bodies", "joints") if "bodies" in content else ("people", "pose_keypoints_2d")
    rows = rows_of(content[name], name)
    allowed = form.joints if len(form.joints) == 1 else OPENPOSE_COUNTS
    return FileImage(labels, rows, openpose_reader(rows, allowed, key))


def single(content: Any, form: Format) -> list[FileImage]:
    """One image's value alone (AlphaPose's sep-json)."""
    return [bodies(content, form)]


def is_by_image(content: Any) -> bool:
    if not isinstance(content, Mapping) or not content:
        return False
    values = list(cast("Mapping[str, Any]", content).values())
    return all(isinstance(v, list) or is_alphapose(v) for v in values)
