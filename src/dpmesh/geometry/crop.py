"""The square crop of an image that the model gets, and the map between image and crop pixels."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Float, Shaped, UInt8

from dpmesh.errors import InputError
from dpmesh.geometry import CROP

_SAMPLES = 8
"""At most 8 x 8 samples for each crop pixel: enough against aliasing, and cheap for huge images."""


@dataclass(frozen=True)
class Crop:
    """A square of an image, resampled to 256 x 256 crop pixels.

    It may reach beyond the image (black outside). x right, y down; integers are pixel centres. Raises InputError unless
    all numbers are finite and the side is positive.
    """

    x1: float
    """Left edge, image pixels."""
    y1: float
    """Top edge, image pixels."""
    side: float
    """Side, image pixels."""
    roll: float = 0.0
    """Degrees that the square is turned clockwise about its middle: what leans by them is upright in the crop. x1, y1
    are those of the square before."""
    SIZE: ClassVar[int] = CROP
    """Side, crop pixels."""

    def __post_init__(self) -> None:
        if not (np.isfinite([self.x1, self.y1, self.side, self.roll]).all() and self.side > 0):
            raise InputError(
                "a crop must have a finite, positive side", where=f"({self.x1}, {self.y1}, {self.side})"
            )

    @classmethod
    def around(cls, box: Shaped[np.ndarray, "4"], expand: float = 1.0, roll: float = 0.0) -> "Crop":
        """The smallest square around the middle of `box` (x1 y1 x2 y2, image pixels) that covers it, times `expand`.

        Raises InputError for a box without width or height, or with a number that is not finite.
        """
        x1, y1, x2, y2 = (float(v) for v in box)
        side = max(x2 - x1, y2 - y1) * expand
        if not np.isfinite([x1, y1, x2, y2]).all() or x2 <= x1 or y2 <= y1 or side <= 0:
            raise InputError(
                "a box must have x1 < x2 and y1 < y2",
                where=f"box {x1:g} {y1:g} {x2:g} {y2:g}",
                fix="Give x1 y1 x2 y2 in pixels.",
            )
        return cls((x1 + x2 - side) / 2, (y1 + y2 - side) / 2, side, roll)

    @property
    def scale(self) -> float:
        """Crop pixels for each image pixel."""
        return self.SIZE / self.side

    @property
    def to_image_map(self) -> Float[np.ndarray, "2 3"]:
        """Affine map from crop pixels to image pixels: turned about the middle of the crop camera's image."""
        if not self.roll:
            return np.array([[1 / self.scale, 0.0, self.x1], [0.0, 1 / self.scale, self.y1]])
        t, middle = np.deg2rad(self.roll), np.full(2, self.SIZE / 2)
        linear = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) / self.scale
        start = np.array([self.x1, self.y1]) + middle / self.scale - linear @ middle
        return np.column_stack([linear, start])

    def to_crop(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Image pixels (..., 2) to crop pixels."""
        if not self.roll:
            return ((points - np.array([self.x1, self.y1])) * self.scale).astype(points.dtype)
        affine = self.to_image_map
        return ((points - affine[:, 2]) @ affine[:, :2] * self.scale**2).astype(points.dtype)

    def to_image(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Crop pixels (..., 2) to image pixels: the inverse of `to_crop`."""
        if not self.roll:
            return (points / self.scale + np.array([self.x1, self.y1])).astype(points.dtype)
        affine = self.to_image_map
        return (points @ affine[:, :2].T + affine[:, 2]).astype(points.dtype)

    def warp(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "256 256 3"]:
        """The crop (256, 256, 3) of an image (h, w, 3); sampling as `sample_window`."""
        return sample_window(image, self.to_image_map, (self.SIZE, self.SIZE))


def sample_window(
    image: UInt8[np.ndarray, "h w 3"], to_image: Float[np.ndarray, "2 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """An affine window of an image: bilinear, averaged where it shrinks, black outside.

    to_image: affine map from window pixels to image pixels; integers are pixel centres in both. size: height and width
    of the window.
    """
    linear = to_image[:, :2]
    shrink = float(np.linalg.norm(linear, axis=0).max())  # image pixels for each window pixel
    n = int(min(max(np.ceil(shrink - 1e-9), 1), _SAMPLES))  # samples for each window pixel and axis
    # Sample k of n lies at (k + 0.5) / n - 0.5 window pixels from a pixel's centre.
    start = to_image[:, 2] + (0.5 / n - 0.5) * linear.sum(1)
    matrix = np.concatenate([linear / n, start[:, None]], 1)
    height, width = size
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    fine = cv2.warpAffine(image, matrix, (width * n, height * n), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    if n > 1:
        fine = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    return fine.astype(np.uint8, copy=False)
