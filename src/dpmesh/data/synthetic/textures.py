"""Backgrounds and surface textures, generated from random numbers. Images: RGB float32 in [0, 1]."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

import cv2
import numpy as np
from jaxtyping import Bool, Float32
from numpy.typing import NDArray

_F32 = np.float32
Array32 = NDArray[np.float32]


def colour(rng: np.random.Generator, strength: float = 0.5) -> Array32:
    """Any colour; greyish more often than not."""
    grey = rng.uniform(0.05, 0.95)
    return np.clip(grey + (rng.random(3) - 0.5) * rng.uniform(0, 2 * strength), 0, 1).astype(_F32)


def cloud(
    rng: np.random.Generator, size: int, cells: int, channels: int = 3
) -> Float32[NDArray[np.float32], "s s c"]:
    """Smooth noise in [-1, 1] with `cells` cells along a side."""
    grid = rng.uniform(-1, 1, (cells + 1, cells + 1, channels)).astype(_F32)
    out = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(out, _F32).reshape(size, size, channels)


def spread(plane: Float32[NDArray[np.float32], "s s"]) -> Float32[NDArray[np.float32], "s s 3"]:
    """One plane as three equal channels; far faster than numpy's broadcasting over a last axis of 3."""
    return np.asarray(cv2.merge([plane, plane, plane]), _F32)


def paste(
    source: Float32[NDArray[np.float32], "s s 3"],
    mask: Bool[NDArray[np.bool_], "s s"],
    onto: Float32[NDArray[np.float32], "s s 3"],
) -> None:
    """Copy the pixels of the mask, in place."""
    cv2.copyTo(source, mask.view(np.uint8), onto)


def texture(rng: np.random.Generator, size: int) -> Float32[NDArray[np.float32], "s s 3"]:
    """A surface: one colour with a gradient, and noise, stripes or tiles; or nothing but noise."""
    ramp = np.linspace(-1, 1, size, dtype=_F32)
    level = ramp[:, None] * _F32(rng.normal(0, 0.1)) + ramp * _F32(rng.normal(0, 0.1))
    kind, first, second = rng.random(), colour(rng), colour(rng)
    axis = np.arange(size, dtype=_F32)
    if kind < 0.35:
        level += cloud(rng, size, int(rng.integers(3, 40)), 1)[..., 0] * _F32(rng.uniform(0.03, 0.2))
    elif kind < 0.6:
        angle, pitch = rng.uniform(0, np.pi), rng.uniform(6, 60)
        phase = axis * _F32(np.cos(angle) / pitch) + axis[:, None] * _F32(np.sin(angle) / pitch)
        stripe = (phase - np.floor(phase) < rng.uniform(0.1, 0.6)).astype(_F32)
        return np.asarray(
            cv2.merge([level + a + stripe * (b - a) for a, b in zip(first, second, strict=True)]), _F32
        )
    elif kind < 0.72:
        pitch = int(rng.integers(10, 60))
        level -= ((axis % pitch < 2) | (axis[:, None] % max(pitch // 2, 4) < 2)) * _F32(
            rng.uniform(0.03, 0.25)
        )
    elif kind < 0.77:
        grain = rng.integers(0, 256, (size // 2, size // 2, 3), np.uint8)
        return np.asarray(cv2.resize(grain, (size, size)) * (1 / 255), _F32)
    return np.asarray(cv2.merge([level + channel for channel in first]), _F32)


def backdrop(rng: np.random.Generator, size: int) -> Float32[NDArray[np.float32], "s s 3"]:
    """What is behind the people: a room, outdoors, clutter, or a plain surface; usually out of focus."""
    kind = rng.random()
    if kind < 0.35:
        out = _room(rng, size)
    elif kind < 0.65:
        out = _outdoors(rng, size)
    else:
        out = texture(rng, size)
    if rng.random() < 0.65:
        _clutter(rng, out, int(rng.integers(1, 14)))
    if rng.random() < 0.6:
        sigma = rng.uniform(0.6, 5)
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), sigma), _F32)
    return out + spread(cloud(rng, size, int(rng.integers(2, 6)), 1)[..., 0] * _F32(rng.uniform(0, 0.12)))


def _room(rng: np.random.Generator, size: int) -> Array32:
    """A wall and a floor that meet in a slanted line; at times a second wall, a skirting board, windows."""
    out = texture(rng, size)
    level, slope = rng.uniform(0.35, 0.95) * size, rng.normal(0, 0.12)
    axis = np.arange(size, dtype=_F32)
    edge = level + slope * (axis - size / 2)
    below = axis[:, None] > edge
    if rng.random() < 0.4:
        corner = rng.uniform(0, size)
        side = (axis > corner)[None] & ~below
        paste(out * _F32(rng.uniform(0.7, 1.2)), side, out)
    paste(texture(rng, size), below, out)
    if rng.random() < 0.4:
        out[np.abs(axis[:, None] - edge + 4) < rng.uniform(1, 5)] = colour(rng, 0.2)
    for _ in range(rng.integers(0, 3)):  # windows, images, doors
        x, y = rng.uniform(-0.1, 0.9, 2) * size
        w, h = rng.uniform(0.1, 0.45, 2) * size
        corners = [(int(x), int(y)), (int(x + w), int(min(y + h, level)))]
        cv2.rectangle(out, corners[0], corners[1], colour(rng).tolist(), -1)
        cv2.rectangle(out, corners[0], corners[1], colour(rng, 0.2).tolist(), int(rng.integers(1, 6)))
    return out


def _outdoors(rng: np.random.Generator, size: int) -> Array32:
    """Sky, ground, foliage."""
    sky = np.array([0.55, 0.7, 0.9], _F32) * _F32(rng.uniform(0.5, 1.1)) + rng.normal(0, 0.06, 3).astype(_F32)
    ground = np.array([[0.35, 0.42, 0.2], [0.5, 0.47, 0.42], [0.7, 0.6, 0.42], [0.3, 0.3, 0.32]], _F32)[
        rng.integers(4)
    ]
    level = rng.uniform(0.2, 0.8) * size
    axis = np.arange(size, dtype=_F32)[:, None, None]
    out = np.where(
        axis < level,
        sky + (1 - axis / level) * _F32(rng.normal(0, 0.1)),
        ground + (axis - level) / size * 0.2,
    )
    out = np.ascontiguousarray(np.broadcast_to(out, (size, size, 3)), _F32)
    out += cloud(rng, size, int(rng.integers(20, 90)), 1) * np.where(axis < level, _F32(0.01), _F32(0.08))
    for _ in range(rng.integers(0, 9)):
        tree = np.array([0.15, 0.3, 0.1], _F32) * _F32(rng.uniform(0.5, 1.6)) + rng.normal(0, 0.05, 3).astype(
            _F32
        )
        centre = (int(rng.uniform(0, size)), int(level + rng.normal(-0.1, 0.12) * size))
        cv2.ellipse(
            out, centre, (int(rng.uniform(8, 60)), int(rng.uniform(8, 60))), 0, 0, 360, tree.tolist(), -1
        )
    return out


def _clutter(rng: np.random.Generator, out: Array32, count: int) -> None:
    """Rectangles, ellipses, lines and limb-like strokes, drawn in place."""
    size = len(out)
    for _ in range(count):
        a = rng.uniform(0, size, 2)
        b = a + rng.normal(0, 0.18, 2) * size
        paint = np.clip(colour(rng), 0, 1).tolist()
        start, end = (int(a[0]), int(a[1])), (int(b[0]), int(b[1]))
        kind = rng.integers(4)
        if kind == 0:
            cv2.rectangle(out, start, end, paint, -1)
        elif kind == 1:
            axes = (int(rng.uniform(3, 45)), int(rng.uniform(3, 45)))
            cv2.ellipse(out, start, axes, rng.uniform(0, 180), 0, 360, paint, -1, cv2.LINE_AA)
        else:
            cv2.line(out, start, end, paint, int(rng.integers(1, 14)), cv2.LINE_AA)
