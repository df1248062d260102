"""One annotated person of a data set, as every parser in datasets/ yields it."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float32, Float64
from numpy.typing import NDArray

from dpmesh.errors import InputError
from dpmesh.fields import LARGEST, LARGEST_SIDE, invertible
from dpmesh.geometry.camera import intrinsics
from dpmesh.skeletons import COCO17, JOINTS30, Skeleton

_F32 = np.float32
Array32 = NDArray[np.float32]


def blank(*shape: int) -> Callable[[], Array32]:
    """Makes the default of a field that a set does not fill."""
    return lambda: np.zeros(shape, _F32)


@dataclass(frozen=True, eq=False)
class Annotation:
    """Pixels of the stored image; metres in the camera frame (docs/reference/conventions.md); the 30-joint set by name.

    record_id: "SET/PLACE".  image: the file.  size: (width, height) px.
    box: x1 y1 x2 y2 inside the image, between pixel centres.  K: pinhole camera of the image.
    annotated: x1 y1 x2 y2, the set's own box as it is, perhaps beyond the image: by it the noise scales and
    neighbours overlap. Where none is named it is `box`.
    full_size, full_place: the set's image, of which the stored one may be a part: (width, height) in its own px;
    x y of its first pixel in px of the stored image, and how many of these one of its px is.
    joints2d and joints3d with the masks of what is annotated; zeros elsewhere.  joint_clear: 0 where a 2D joint
    is annotated as hidden.
    Fit (where fit_valid is 1): pose (axis-angle, row 0 in the camera frame), betas, transl; fit_joints3d, joints
    of the fitted mesh, in its place; rest_root, the pelvis joint of the shape in the rest pose, which
    the root turns about. pose_valid: rows of pose that are known; betas_valid: 0 for a gendered body's.
    neighbours: COCO-17 joints (px) of people whose annotated boxes overlap by an IoU of 0.1 or more; flags: labelled.
    detected: keypoints (x, y, confidence) of a real detector, used instead of noise.  middle_pelvis: Pelvis is no
    annotation but the middle of the hips.
    """

    record_id: str
    image: Path
    size: tuple[int, int]
    box: Float64[NDArray[np.float64], "4"]
    K: Float64[NDArray[np.float64], "3 3"]
    joints2d: Float32[Array32, "30 2"]
    joints2d_valid: Float32[Array32, "30"]
    joint_clear: Float32[Array32, "30"] = field(default_factory=lambda: np.ones(30, _F32))
    joints3d: Float32[Array32, "30 3"] = field(default_factory=blank(30, 3))
    joints3d_valid: Float32[Array32, "30"] = field(default_factory=blank(30))
    pose: Float32[Array32, "24 3"] = field(default_factory=blank(24, 3))
    pose_valid: Float32[Array32, "24"] = field(default_factory=blank(24))
    betas: Float32[Array32, "10"] = field(default_factory=blank(10))
    betas_valid: float = 0.0
    transl: Float32[Array32, "3"] = field(default_factory=blank(3))
    rest_root: Float32[Array32, "3"] = field(default_factory=blank(3))
    fit_joints3d: Float32[Array32, "30 3"] = field(default_factory=blank(30, 3))
    fit_valid: float = 0.0
    neighbours: Float32[Array32, "k 17 2"] = field(default_factory=blank(0, 17, 2))
    neighbour_flags: Float32[Array32, "k 17"] = field(default_factory=blank(0, 17))
    detected: Float32[Array32, "n 3"] = field(default_factory=blank(0, 3))  # 30 rows, or none
    middle_pelvis: bool = False
    annotated: Float64[NDArray[np.float64], "4"] = field(default_factory=lambda: np.zeros(4))
    full_size: tuple[int, int] = (0, 0)
    full_place: Float64[NDArray[np.float64], "3"] = field(default_factory=lambda: np.array([0.0, 0.0, 1.0]))

    def __post_init__(self) -> None:
        if not self.annotated.any():
            object.__setattr__(self, "annotated", self.box)
        if self.full_size == (0, 0):
            object.__setattr__(self, "full_size", self.size)

    @property
    def diagonal(self) -> float:
        """Of the set's image, in its own px."""
        return float(np.hypot(*self.full_size))

    @property
    def diagonal_camera(self) -> Float64[NDArray[np.float64], "3 3"]:
        """K (3, 3) of the stored image if the focal length were the diagonal of the set's image, with the axis through
        the middle of that: what is assumed of an unknown camera."""
        x, y, zoom = (float(v) for v in self.full_place)
        width, height = self.full_size
        to_stored = np.array([[zoom, 0.0, x], [0.0, zoom, y], [0.0, 0.0, 1.0]])
        return to_stored @ intrinsics(self.diagonal, (height, width))


def to30(
    points: NDArray[np.floating], source: Skeleton, middle_pelvis: bool = False
) -> tuple[Float32[Array32, "30 c"], Float32[Array32, "30"]]:
    """Rows by name in the 30-joint set, and which of them the source has.

    middle_pelvis: the last column is a flag; Pelvis becomes the middle of the hips where both have it.
    """
    out, present = np.zeros((30, points.shape[1]), _F32), np.zeros(30, _F32)
    for row, at in enumerate(JOINTS30.indices_in(source)):
        if at >= 0:
            out[row], present[row] = points[at], 1
    if middle_pelvis:
        hips = points[[source.index("L_Hip"), source.index("R_Hip")]]
        out[0], present[0] = hips.mean(0), 1
        out[0, -1] = hips[:, -1].prod()
    return out, present


def coco_rows(
    joints2d: Float32[Array32, "30 2"], valid: Float32[Array32, "30"]
) -> tuple[Float32[Array32, "17 2"], Float32[Array32, "17"]]:
    """The COCO-17 joints of a person in the 30-joint set."""
    return joints2d[COCO_IN_30], valid[COCO_IN_30]


COCO_IN_30 = np.array(COCO17.indices_in(JOINTS30))


def tight_box(points: NDArray[np.floating], valid: NDArray[Any]) -> Float64[NDArray[np.float64], "4"]:
    """x1 y1 x2 y2 of the valid joints; zeros where there are none."""
    shown = np.asarray(points, np.float64)[valid > 0, :2]
    return np.asarray(np.concatenate([shown.min(0), shown.max(0)]), np.float64) if len(shown) else np.zeros(4)


def overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Intersection over union of two boxes."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    both = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared
    return shared / both if both > 0 else 0.0


def with_neighbours(people: Sequence[Annotation]) -> list[Annotation]:
    """People of one image, each with those whose annotated boxes overlap its own (IoU >= 0.1)."""
    boxes = [person.annotated for person in people]
    joints = [coco_rows(p.joints2d, p.joints2d_valid) for p in people]
    out: list[Annotation] = []
    for i, person in enumerate(people):
        near = [k for k in range(len(people)) if k != i and overlap(boxes[i], boxes[k]) >= 0.1]
        if near:
            points, flags = (np.stack([joints[k][part] for k in near]) for part in range(2))
            person = replace(person, neighbours=points * flags[..., None], neighbour_flags=flags)
        out.append(person)
    return out


def corners(box: Sequence[Any] | NDArray[np.floating]) -> Float64[NDArray[np.float64], "4"]:
    """x y w h as in the sets' files to x1 y1 x2 y2, as Annotation.annotated."""
    x, y, w, h = (float(v) for v in box)
    return np.array([x, y, x + w, y + h])


def inside_box(
    box: Sequence[Any] | NDArray[np.floating], size: tuple[int, int]
) -> Float64[NDArray[np.float64], "4"] | None:
    """x y w h as in the sets' files to x1 y1 x2 y2 between pixel centres, cut at the image's border; None: no box.

    The originals measure the far corner from the near one after that is cut, which shifts boxes that begin
    left of or above the image; here both corners are cut.
    """
    x, y, w, h = (float(v) for v in box)
    if not np.isfinite([x, y, w, h]).all() or w <= 0 or h <= 0:
        return None
    x1, y1 = max(0.0, x), max(0.0, y)
    x2, y2 = min(size[0] - 1.0, x + max(0.0, w - 1)), min(size[1] - 1.0, y + max(0.0, h - 1))
    return np.array([x1, y1, x2, y2]) if x2 > x1 and y2 > y1 else None


def to_plain(person: Annotation) -> dict[str, Any]:
    """For JSON: everything but the image's path. Numbers keep six decimals (a micrometre, a millionth of a pixel)."""
    out: dict[str, Any] = {}
    for item in fields(Annotation):
        value = getattr(person, item.name)
        if item.name != "image":
            plain = np.round(value, 6).tolist() if isinstance(value, np.ndarray) else value
            out[_STORED_AS.get(item.name, item.name)] = plain
    return out


def from_plain(data: object, image: Path, where: str, *, finite: bool = True) -> Annotation:
    """The inverse. Raises InputError, naming `where`, for data that are not a person's or are damaged. finite=False
    lets numbers that are not finite pass, for one who counts such records (`not_finite`)."""
    if not isinstance(data, dict):
        raise InputError("this is no person's record", where=where)
    record = cast("dict[str, Any]", data)
    try:
        values: dict[str, Any] = {"image": image}
        for name in ("size", "full_size"):
            values[name] = (int(record[name][0]), int(record[name][1]))
        with np.errstate(over="ignore"):  # becomes infinite, which `damage` names
            for name, shape in _SHAPES.items():
                kind = np.float64 if name in ("box", "K", "annotated", "full_place") else _F32
                values[name] = np.array(record[_STORED_AS.get(name, name)], kind).reshape(shape)
        for name in ("betas_valid", "fit_valid"):
            values[name] = float(record[name])
        values["record_id"], values["middle_pelvis"] = record["record_id"], bool(record["middle_pelvis"])
        if len(values["neighbours"]) != len(values["neighbour_flags"]):
            raise ValueError("neighbour_flags")
        person = Annotation(**values)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        line = " ".join(str(error).split())[:80]
        raise InputError(f"a field of the record is missing or damaged ({line})", where=where) from None
    uncounted = not finite and not_finite(person)
    if wrong := _nameless(person) if uncounted else damage(person):
        raise InputError(wrong, where=where)
    return person


def not_finite(person: Annotation) -> bool:
    """Whether a number of the record is NaN, infinite, or beyond anything measured."""
    parts = [np.ravel(getattr(person, name)) for name in _SHAPES]
    numbers = np.concatenate([*parts, [person.betas_valid, person.fit_valid]])
    return not (np.abs(numbers) < LARGEST).all()  # NaN is not


def _nameless(person: Annotation) -> str:
    """What is wrong with a record's id, "" for nothing."""
    name = cast("object", person.record_id)
    right = isinstance(name, str) and 0 < len(name) <= _LONGEST_ID and name.isprintable()
    return "" if right else "the record's id is no printable text"


def damage(person: Annotation) -> str:
    """Why nothing can be computed from a person's record, "" for nothing: numbers, camera, box, name."""
    if wrong := _nameless(person):
        return wrong
    if not all(0 < side < LARGEST_SIDE for side in person.size):
        return "the image's size is damaged"
    if not_finite(person):
        return "a number of the record is not finite, or beyond anything measured"
    if not invertible(person.K):
        return "the camera K cannot be inverted"
    if (person.box[2:] <= person.box[:2]).any():
        return "the box has no area"
    if len(person.neighbours) != len(person.neighbour_flags) or len(person.detected) not in (0, 30):
        return "neighbours or detected keypoints are incomplete"
    if not (0 <= person.betas_valid <= 1 and 0 <= person.fit_valid <= 1):
        return "a mask of the record is damaged"
    return ""


_LONGEST_ID = 1000


_SHAPES: dict[str, tuple[int, ...]] = {
    "box": (4,), "K": (3, 3), "joints2d": (30, 2), "joints2d_valid": (30,), "joint_clear": (30,),
    "joints3d": (30, 3), "joints3d_valid": (30,), "pose": (24, 3), "pose_valid": (24,), "betas": (10,),
    "transl": (3,), "rest_root": (3,), "fit_joints3d": (30, 3), "neighbours": (-1, 17, 2),
    "neighbour_flags": (-1, 17), "detected": (-1, 3), "annotated": (4,), "full_place": (3,),
}  # fmt: skip

_STORED_AS = {"detected": "given"}
"""Names of fields that have another name in the stored record."""
