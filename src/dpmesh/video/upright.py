"""A decoded frame as an upright RGB image of 8 bits with square pixels.

What FFmpeg's players do is done here: the display matrix turns and mirrors, the sample aspect ratio stretches, and
perceptual quantisation (PQ: HDR10, Dolby Vision) is mapped to sRGB. HLG is made to be shown as it is.
"""

import struct
from fractions import Fraction
from functools import cache
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

_PQ = 16
"""FFmpeg's number of the transfer characteristic SMPTE ST 2084."""
_WHITE = 203.0
"""cd/m² of diffuse white in HDR (ITU-R BT.2408)."""
_PEAK = 1000.0
"""cd/m² that become the brightest value."""
_MATRIX = "DISPLAYMATRIX"


def rgb_of(frame: Any, aspect: Fraction | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """frame: PyAV's. aspect: width of a pixel, its height being 1."""
    image = frame.to_ndarray(format="rgb24")
    if getattr(frame, "color_trc", None) == _PQ:
        image = cv2.LUT(image, _pq_to_srgb())
    image = _square(image, aspect)
    for side in getattr(frame, "side_data", None) or ():
        if side.type.name == _MATRIX:
            image = turned(image, struct.unpack("=9i", bytes(side)[:36]))
    return np.ascontiguousarray(image)


def turned(image: UInt8[np.ndarray, "h w 3"], matrix: tuple[int, ...]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """By the nearest of the eight quarter turns and mirror images. matrix: row-major, of row vectors (x, y, 1), as
    MP4's header has it (ISO/IEC 14496-12): x' = a x + c y, y' = b x + d y."""
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if abs(a) + abs(d) < abs(b) + abs(c):
        image = image.swapaxes(0, 1)
        a, d = c, b
    if a < 0:
        image = image[:, ::-1]
    return image[::-1] if d < 0 else image


def _square(image: UInt8[np.ndarray, "h w 3"], ratio: Fraction | None) -> UInt8[np.ndarray, "h w2 3"]:
    """Widened or narrowed to square pixels."""
    if not ratio or ratio == 1 or not 0.1 < ratio < 10:
        return image
    width = max(1, round(image.shape[1] * float(ratio)))
    return np.asarray(cv2.resize(image, (width, image.shape[0]), interpolation=cv2.INTER_AREA), np.uint8)


@cache
def _pq_to_srgb() -> UInt8[np.ndarray, "256"]:
    """Table from PQ's code values to sRGB's: the peak becomes white by Reinhard's extended curve."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = (np.arange(256) / 255) ** (1 / m2)
    light = 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) / _WHITE
    peak = _PEAK / _WHITE
    shown = np.clip(light * (1 + light / peak**2) / (1 + light), 0, 1)
    srgb = np.where(shown <= 0.0031308, 12.92 * shown, 1.055 * shown ** (1 / 2.4) - 0.055)
    return np.round(255 * srgb).astype(np.uint8)
