"""From a file's numbers to pixels of the image and confidences in [0, 1]."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from dpmesh.errors import InputError
from dpmesh.inference.keypoints.raw import FileImage, FilePerson, Fractions

PERCENT = 10.0
"""Confidences above this mean a scale of 0 to 100. Heat-map peaks, which some tools write, reach 6."""
MOST = 100.5
"""Greatest confidence."""
NORMALISED = 2.0
"""Coordinates that are all below this are fractions of the image, not pixels; some may lie outside the image."""
_LEAST_SIDE = 32
"""In a smaller image such coordinates may be pixels."""
_ROUNDING = 1.0
"""Pixels by which a canvas may differ from the image's shape."""
_OUTSIDE = 0.05
"""Of the long side: a joint further outside lies outside the image."""


def confidence_scale(people: Sequence[FilePerson]) -> float:
    """What a file's confidences are divided by: 1, or 100. Raises InputError beyond that."""
    values = [p.points[:, 2][np.isfinite(p.points[:, 2])] for p in people]
    top = float(max((v.max(initial=0.0) for v in values), default=0.0))
    if top > MOST:
        raise InputError(
            f"confidences go up to {top:g}, so the third numbers are not confidences",
            fix="Use x, y, confidence in 0 to 1 (or 0 to 100).",
        )
    return 100.0 if top > PERCENT else 1.0


def to_pixels(
    people: list[FilePerson], image: FileImage, size: tuple[int, int], fractions: Fractions, canvas_name: str
) -> list[FilePerson]:
    """The people of one image in its pixels. size: (height, width) of the image.

    Raises InputError, with the numbers, where they cannot belong to the image.
    """
    wide, high = size[1], size[0]
    scale, offset = np.ones(2), np.zeros(2)
    canvas = image.size
    if fractions == "always":
        scale = np.array([wide, high], np.float64)
        canvas = None
    elif _normalised(people, size):
        if fractions == "never":
            low, top = _range(people)
            raise InputError(
                f"the coordinates lie between {low:.3g} and {top:.3g}: fractions of the image, not pixels",
                fix=f"Multiply x by {wide} and y by {high}.",
            )
        scale, offset = _fraction_scale(people, (wide, high), canvas, fractions)
        canvas = None
    if canvas is not None:
        scale = scale * _canvas_scale(canvas, (wide, high), canvas_name)
    moved = [_moved(person, scale, offset) for person in people]
    _refuse_outside(moved, (wide, high))
    return moved


def _visible(people: Sequence[FilePerson]) -> Float64[np.ndarray, "n 2"]:
    rows = [p.points[(p.points[:, 2] > 0) & np.isfinite(p.points).all(1), :2] for p in people]
    return np.concatenate([*rows, np.zeros((0, 2))])


def _range(people: Sequence[FilePerson]) -> tuple[float, float]:
    points = _visible(people)
    return float(points.min(initial=0.0)), float(points.max(initial=0.0))


def _normalised(people: Sequence[FilePerson], size: tuple[int, int]) -> bool:
    points = _visible(people)
    return len(points) > 0 and min(size) > _LEAST_SIDE and float(np.abs(points).max()) <= NORMALISED


def _fraction_scale(
    people: Sequence[FilePerson],
    size: tuple[int, int],
    canvas: tuple[float, float] | None,
    fractions: Fractions,
) -> tuple[Float64[np.ndarray, "2"], Float64[np.ndarray, "2"]]:
    """Scale and offset: x in pixels = scale · x + offset. A canvas must have the image's shape."""
    wide_high = np.array(size, np.float64)
    if fractions != "openpose" or canvas is not None:
        if canvas is not None:
            _canvas_scale(canvas, size, "canvas")
        return wide_high, np.zeros(2)
    inner = wide_high - 1
    hidden = np.concatenate([p.points[p.points[:, 2] == 0, :2] for p in people])
    signed = bool(len(hidden) and (hidden == -1).all(1).any()) or float(np.mean(_visible(people) < 0)) > 0.1
    return (inner / 2, inner / 2) if signed else (inner, np.zeros(2))


def _canvas_scale(canvas: tuple[float, float], size: tuple[int, int], name: str) -> Float64[np.ndarray, "2"]:
    """Pixels of the image per pixel of the canvas; 1 where they differ by rounding."""
    (cw, ch), (wide, high) = canvas, size
    if abs(cw - wide) <= _ROUNDING and abs(ch - high) <= _ROUNDING:
        return np.ones(2)
    if abs(cw * high / wide - ch) > _ROUNDING and abs(ch * wide / high - cw) > _ROUNDING:
        rotated = " (rotated by EXIF?)" if abs(cw - high) <= _ROUNDING and abs(ch - wide) <= _ROUNDING else ""
        raise InputError(
            f"the {name} is {cw:g}×{ch:g}, the image {wide}×{high}{rotated}: their relation is not known",
            fix="Use coordinates in pixels of the image.",
        )
    return np.array([wide / cw, high / ch])


def _moved(
    person: FilePerson, scale: Float64[np.ndarray, "2"], offset: Float64[np.ndarray, "2"]
) -> FilePerson:
    points = person.points.copy()
    points[:, :2] = points[:, :2] * scale + offset
    box = None
    if person.box is not None:
        corners = np.array(person.box).reshape(2, 2) * scale + offset
        box = (float(corners[0, 0]), float(corners[0, 1]), float(corners[1, 0]), float(corners[1, 1]))
    return dataclasses.replace(person, points=points, box=box)


def _refuse_outside(people: Sequence[FilePerson], size: tuple[int, int]) -> None:
    """Raise InputError where most joints of all people lie outside: the file is of an image of another size."""
    points = _visible(people)
    margin = _OUTSIDE * max(size)
    outside = ((points < -margin) | (points > np.array(size) + margin)).any(1)
    if len(points) and outside.mean() > 0.5:
        top = points.max(0)
        raise InputError(
            f"{outside.sum()} of {len(points)} joints lie outside the {size[0]}×{size[1]} image (x up to {top[0]:g},"
            f" y up to {top[1]:g})",
            fix="These are keypoints of another image, or of another size of it.",
        )
