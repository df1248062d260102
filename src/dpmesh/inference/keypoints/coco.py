"""COCO annotations, COCO results and MPII: one object per person, with the image's id or name."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dpmesh.errors import ConfigError, InputError
from dpmesh.inference.keypoints.raw import (
    FileImage,
    FilePerson,
    Format,
    Row,
    Skip,
    listed,
    mapping,
    number,
    points_of,
    rows_of,
    score_of,
    xywh_box,
)
from dpmesh.skeletons import (
    COCO17,
    Skeleton,
    named_skeleton,
)


def coco_person(
    row: Any, joints: Sequence[Skeleton], by_category: Mapping[str, Skeleton | str] | None = None
) -> FilePerson:
    row = mapping(row)
    category = (by_category or {}).get(_ident(row.get("category_id")))
    why: Skip = ""
    if row.get("iscrowd") in (1, True):
        why = "crowd"
    elif isinstance(category, str):
        why = "no person"
    elif row.get("keypoints") is None:  # an entry of a detector: a box alone
        why = "no keypoints"
    elif row["keypoints"] == []:
        why = "empty"
    if why:
        return FilePerson(np.zeros((len(COCO17), 3)), COCO17, skip=why)
    points, skeleton = points_of(row["keypoints"], (category,) if isinstance(category, Skeleton) else joints)
    return FilePerson(points, skeleton, xywh_box(row, "bbox", "box"), score_of(row, "score"))


def _categories(content: Mapping[str, Any]) -> dict[str, Skeleton | str]:
    """Category id -> its joint set where the file names joints, or why the category is not a person's."""
    categories: dict[str, Skeleton | str] = {}
    for _, item in rows_of(content.get("categories") or [], "categories"):
        names = mapping(item).get("keypoints")
        if not names:
            continue
        title = str(item.get("name", "category"))
        try:
            categories[_ident(item.get("id"))] = named_skeleton(
                [str(n) for n in listed(names, "keypoints")], title
            )
        except ConfigError as error:
            categories[_ident(item.get("id"))] = str(error)
    return categories


def coco(content: Any, form: Format) -> list[FileImage]:
    categories = {} if len(form.joints) == 1 else _categories(content)
    rows = rows_of(content["annotations"], "annotations")
    used = {_ident(mapping(row).get("category_id")) for _, row in rows}
    refused = [why for name, why in categories.items() if isinstance(why, str) and name in used]
    if refused and all(isinstance(categories.get(name), str) for name in used):
        raise InputError(f"no category has a person's joints: {refused[0]}")

    def read(row: Any) -> FilePerson:
        return coco_person(row, form.joints, categories)

    if "images" not in content:
        return by_label(rows, read)
    by_image: dict[str, list[Row]] = {}
    for where, row in rows:
        by_image.setdefault(_ident(row.get("image_id")), []).append((where, row))
    images: list[FileImage] = []
    for where, item in rows_of(content["images"], "images"):
        name = mapping(item).get("file_name", item.get("coco_url"))
        if not isinstance(name, str):
            raise InputError("the field file_name is missing", where=where)
        size = (number(item.get("width")), number(item.get("height")))
        known = all(math.isfinite(n) and n > 0 for n in size)
        images.append(
            FileImage((name,), by_image.get(_ident(item.get("id")), []), read, size if known else None)
        )
    return images


def _ident(value: Any) -> str:
    """An id as text: 7 and "7" are the same image."""
    return str(value) if isinstance(value, str | int) else ""


def by_label(rows: Iterable[Row], read: Callable[[Any], FilePerson]) -> list[FileImage]:
    """Rows that name their image, grouped by it."""
    groups: dict[str, list[Row]] = {}
    labels: dict[str, str | int | None] = {}
    for where, row in rows:
        label = mapping(row).get("file_name", row.get("image_id", row.get("image")))
        label = label if isinstance(label, str | int) and not isinstance(label, bool) else None
        groups.setdefault(repr(label), []).append((where, row))
        labels[repr(label)] = label
    named = ((labels[key], group) for key, group in groups.items())
    images = [FileImage(() if label is None else (label,), group, read) for label, group in named]
    return images or [FileImage((), [], read)]


def results(content: Any, form: Format) -> list[FileImage]:
    rows = rows_of(content, "results")
    refuse_no_person(rows)
    return by_label(rows, lambda row: result_person(row, form.joints))


def result_person(row: Any, joints: Sequence[Skeleton]) -> FilePerson:
    """A person of COCO results; an entry of another category than 1, a person's, is skipped."""
    if not _is_person(row):
        return FilePerson(np.zeros((len(COCO17), 3)), COCO17, skip="no person")
    return coco_person(row, joints)


def refuse_no_person(rows: Sequence[Row]) -> None:
    """Raise InputError for results of which none is a person."""
    if rows and not any(_is_person(row) for _, row in rows):
        raise InputError(
            f"no entry is a person: category_id is {_ident(rows[0][1]['category_id'])}",
            fix="A person's category_id is 1.",
        )


def _is_person(row: Any) -> bool:
    """Whether results' entry is of category 1, or names none."""
    category = row.get("category_id") if isinstance(row, Mapping) else None
    return category is None or not isinstance(category, str | int) or str(category) == "1"


def mpii(content: Any, form: Format) -> list[FileImage]:
    def read(row: Any) -> FilePerson:
        points, joints = points_of(mapping(row).get("joints"), form.joints)
        visible = np.array([number(v) for v in listed(row.get("joints_vis"), "joints_vis")])
        if visible.shape != (len(joints),):
            raise InputError(f"{visible.size} of joints_vis for {len(joints)} joints")
        points = np.c_[points[:, :2] - 1, visible]  # MPII counts pixels from 1
        return FilePerson(points, joints)

    return by_label(rows_of(content, "annotations"), read)
