"""MMPose, Ultralytics, YOLO labels, MediaPipe and easy_ViTPose: each its own layout."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from dpmesh.errors import InputError
from dpmesh.inference.keypoints.raw import (
    FileImage,
    FilePerson,
    Format,
    finite,
    keys_of,
    listed,
    mapping,
    number,
    points_of,
    rows_of,
    score_of,
    with_flags,
    wrong_count,
)
from dpmesh.skeletons import (
    Skeleton,
    named_skeleton,
)


def _instance(row: Any, joints: Sequence[Skeleton]) -> FilePerson:
    """MMPose: points and scores apart, the box x1 y1 x2 y2 and nested."""
    row = mapping(row)
    lists = listed(row.get("keypoints"), "keypoints")
    if any(isinstance(point, list) and len(cast("list[Any]", point)) != 2 for point in lists):
        raise InputError("keypoints are not lists of x and y: they are 3D, or another tool's")
    points, skeleton = points_of(lists, joints)
    scores = row.get("keypoint_scores")
    if scores is not None:
        confidence = [number(v) for v in listed(scores, "keypoint_scores")]
        if len(confidence) != len(skeleton):
            raise InputError(f"{len(confidence)} keypoint_scores for {len(skeleton)} joints")
        points[:, 2] = confidence
    box = None
    if row.get("bbox") not in (None, []):
        x1, y1, x2, y2 = finite(row["bbox"], 4, "bbox")
        box = (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None
    return FilePerson(points, skeleton, box, score_of(row, "bbox_score"))


def mmpose(content: Any, form: Format) -> list[FileImage]:
    joints: Sequence[Skeleton] = form.joints
    if isinstance(content, Mapping):
        names = (cast("Mapping[str, Any]", content).get("meta_info") or {}).get("keypoint_id2name")
        if names and len(form.joints) != 1:
            ordered = [str(names[key]) for key in sorted(names, key=int)]
            joints = (named_skeleton(ordered, str(content["meta_info"].get("dataset_name", "MMPose"))),)
        rows = _apart(content) if is_rtmlib(content) else listed(content["instance_info"], "instance_info")
    else:
        rows = content
    if rows and "instances" in keys_of(rows):  # a video: frames of instances
        return [FileImage((), rows_of(mapping(frame).get("instances"), f"[{i}].instances"),
                          lambda row: _instance(row, joints)) for i, frame in enumerate(rows)]  # fmt: skip
    return [FileImage((), rows_of(rows, "instances"), lambda row: _instance(row, joints))]


def is_rtmlib(content: Any) -> bool:
    """rtmlib: the points of all people, and their scores apart."""
    return isinstance(content, Mapping) and keys_of(content) == {"keypoints", "scores"}


def _apart(content: Mapping[str, Any]) -> list[Any]:
    points, scores = (listed(content[key], key) for key in ("keypoints", "scores"))
    if len(points) != len(scores):
        raise InputError(f"{len(points)} keypoints for {len(scores)} scores")
    return [{"keypoints": p, "keypoint_scores": s} for p, s in zip(points, scores, strict=True)]


def ultralytics(content: Any, form: Format) -> list[FileImage]:
    def read(row: Any) -> FilePerson:
        row = mapping(row)
        lists = mapping(row.get("keypoints"))
        x, y = (np.array([number(v) for v in listed(lists.get(key), key)]) for key in "xy")
        if x.shape != y.shape:
            raise InputError(f"{len(x)} x for {len(y)} y")
        third = lists.get("visible")
        xy = np.stack([x, y], 1)
        points = with_flags(xy)
        if third is not None:
            confidence = np.array([number(v) for v in listed(third, "visible")])
            if confidence.shape != x.shape:
                raise InputError(f"{len(confidence)} visible for {len(x)} joints")
            points[:, 2] *= confidence  # joints below the threshold are moved to 0, 0
        joints = next((j for j in form.joints if len(j) == len(points)), None)
        if joints is None:
            raise wrong_count(3 * len(points), form.joints)
        box = None
        if isinstance(row.get("box"), Mapping):
            corners = [number(row["box"].get(key)) for key in ("x1", "y1", "x2", "y2")]
            box = (
                (corners[0], corners[1], corners[2], corners[3]) if all(map(math.isfinite, corners)) else None
            )
        skip = "" if str(row.get("name", "person")) == "person" else "no person"
        return FilePerson(points, joints, box, score_of(row, "confidence"), skip)

    return [FileImage((), rows_of(content, "results"), read)]


def yolo(content: Any, form: Format) -> list[FileImage]:
    """Rows of a label: class, box (centre, size), joints of two or three numbers; after them, of a prediction, the
    person's confidence, the track's id or both."""
    joints = form.joints[0]

    def read(row: Any) -> FilePerson:
        numbers = [number(v) for v in row]
        n = len(numbers) - 5
        width = 3 if 3 * len(joints) <= n <= 3 * len(joints) + 2 else 2
        if not width * len(joints) <= n <= width * len(joints) + (2 if width == 3 else 0):
            raise InputError(f"{len(numbers)} numbers in a row; {len(joints)} joints make 56, 57, 58 or 39")
        array = np.array(numbers[5 : 5 + width * len(joints)]).reshape(-1, width)
        rest = numbers[5 + width * len(joints) :]
        score = rest[0] if rest and rest[0] <= 1 and (len(rest) == 2 or rest[0] % 1) else None
        x, y, w, h = numbers[1:5]
        box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2) if w > 0 and h > 0 else None
        return FilePerson(
            array if width == 3 else with_flags(array), joints, box, score, "no person" if numbers[0] else ""
        )

    return [FileImage((), rows_of(content, "line"), read)]


_LANDMARKS = ("landmarks", "pose_landmarks", "poseLandmarks", "landmark")


def mediapipe(content: Any, form: Format) -> list[FileImage]:
    if "pose_world_landmarks" in keys_of(content) and not keys_of(content) & set(_LANDMARKS):
        raise InputError("world landmarks are metres, not pixels", fix="Use MediaPipe's pose_landmarks.")
    while isinstance(content, Mapping):
        content = next(content[key] for key in _LANDMARKS if key in content)
    people = listed(content, "landmarks")
    if people and "x" in keys_of(people):
        people = [people]  # one person
    people = [p.get("landmark", p) if isinstance(p, Mapping) else p for p in people]

    def read(row: Any) -> FilePerson:
        marks = [mapping(mark) for mark in listed(row, "landmarks")]
        if len(marks) != len(form.joints[0]):
            raise InputError(f"{len(marks)} landmarks instead of {len(form.joints[0])}")
        points = [[number(m.get("x")), number(m.get("y")), number(m.get("visibility", 1.0))] for m in marks]
        return FilePerson(np.array(points), form.joints[0])

    return [FileImage((), rows_of(people, "landmarks"), read)]


def is_mediapipe(content: Any) -> bool:
    keys = keys_of(content)
    return (
        bool(keys & {*_LANDMARKS, "pose_world_landmarks"})
        or {"x", "y", "visibility"} <= keys
        or {"x", "y", "z"} <= keys
    )


def easy_vitpose(content: Any, form: Format) -> list[FileImage]:
    joints: Sequence[Skeleton] = form.joints
    if len(joints) != 1 and isinstance(content.get("skeleton"), Mapping):
        names = content["skeleton"]
        joints = (named_skeleton([str(names[key]) for key in sorted(names, key=int)], "skeleton"),)

    def read(row: Any) -> FilePerson:
        points, skeleton = points_of(row, joints)
        return FilePerson(points[:, [1, 0, 2]], skeleton)  # y comes first

    frames = rows_of(content["keypoints"], "keypoints")
    return [
        FileImage((), [(f"{where}.{key}", v) for key, v in mapping(frame).items()], read)
        for where, frame in frames
    ]


def is_easy_vitpose(content: Any) -> bool:
    if not isinstance(content, Mapping) or not isinstance(content.get("keypoints"), list):  # pyright: ignore[reportUnknownMemberType]
        return False
    frames = cast("list[Any]", content["keypoints"])
    return all(isinstance(frame, Mapping) for frame in frames)


def is_label_text(content: Any) -> bool:
    """Rows of numbers: the decoded content of a .txt."""
    return isinstance(content, list) and bool(content) and all(isinstance(row, tuple) for row in content)  # pyright: ignore[reportUnknownVariableType]
