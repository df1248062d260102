"""Effects of a camera and a file on an image: exposure, haze, defocus, shaking, low resolution, noise, JPEG."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from dpmesh.data.synthetic.materials import pick
from dpmesh.data.synthetic.textures import spread

_F32 = np.float32
Array32 = NDArray[np.float32]
_WHITE = np.random.default_rng(7).standard_normal((512, 512)).astype(_F32)  # grain, taken at random offsets

_RANGE = np.arange(256) / 128  # twice of what is white, so that highlights end softly, as on film
_SHOULDER = np.where(_RANGE < 0.7, _RANGE, 1 - 0.3 * np.exp((0.7 - _RANGE) / 0.3))
_GREY = np.tile(np.array([0.299, 0.587, 0.114]), (3, 1))

LOW = 0.22
"""Share of images that were smaller than the crop: of far people, of video. Their side: LOW_SIDE px."""
LOW_SIDE = (48, 200)


def photograph(
    rng: np.random.Generator,
    image: Float32[NDArray[np.float32], "s s 3"],
    frame: Float32[NDArray[np.float32], "4"],
    haze: float = 0.0,
) -> UInt8[NDArray[np.uint8], "s s 3"]:
    """8 bits; black outside `frame` (x1 y1 x2 y2 px). haze: strength of a bright veil, as of a sun in the image."""
    size, u = len(image), rng.uniform
    saturation = (0.0, 0.5, 0.75, 1.0, 1.3)[pick(rng, (0.04, 0.1, 0.16, 0.5, 0.2))]
    # A camera exposes for the middle of the image; its exposure is off, now and then far.
    level = float(image[size // 4 : -size // 4 : 4, size // 4 : -size // 4 : 4].mean())
    exposure = u(0.3, 0.55) / max(level, 0.02) * np.exp(rng.normal(0, 0.2))
    contrast = u(0.75, 1.25)
    cast = 1 + rng.normal(0, 0.04, 3)
    lift = 0.5 - 0.5 * contrast + rng.normal(0, 0.03)
    mix = saturation * np.eye(3) + (1 - saturation) * _GREY  # towards grey, then each channel's gain
    mix = np.concatenate([mix * (exposure * contrast * cast)[:, None], np.full((3, 1), lift)], 1) * 128
    developed = np.asarray(cv2.transform(image, mix.astype(_F32)), _F32)
    if haze > 0:
        _veil(developed, haze, u(-0.2, 1.2, 2) * size, u(0.4, 1.2) * size)
    curve = (_SHOULDER ** np.exp(rng.normal(0, 0.2)) * 255 + 0.5).astype(np.uint8)
    pixels = np.asarray(
        cv2.LUT(cv2.convertScaleAbs(np.maximum(developed, 0, out=developed)), curve), np.uint8
    )
    sigma = (
        abs(rng.normal(0.45, 0.35)) + 0.25 if rng.random() < 0.96 else u(1.5, 3.0)
    )  # one in 25 out of focus
    pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.uint8)
    if rng.random() < 0.08:
        pixels = motion_blur(rng, pixels)
    small = size
    if rng.random() < LOW:
        small = int(np.exp(u(np.log(LOW_SIDE[0]), np.log(LOW_SIDE[1]))))
        pixels = cv2.resize(pixels, (small, small), interpolation=cv2.INTER_AREA)
    strength = abs(rng.normal(0, 0.014)) * 255 if rng.random() < 0.93 else u(0.03, 0.09) * 255
    place = rng.integers(0, len(_WHITE) - small, (3, 2))
    coloured = rng.random() >= 0.5
    grain = [_WHITE[r : r + small, c : c + small] for r, c in place[: 3 if coloured else 1]]
    grain = cv2.merge(grain if coloured else grain * 3)
    pixels = np.asarray(cv2.addWeighted(pixels, 1, grain, strength, 0, dtype=cv2.CV_8U), np.uint8)
    if rng.random() < 0.7:
        quality = int(u(25, 96) if rng.random() < 0.85 else u(8, 25))
        pixels = _jpeg(pixels, quality)
    if small < size:
        how = cv2.INTER_LINEAR if rng.random() < 0.7 else cv2.INTER_CUBIC
        pixels = cv2.resize(pixels, (size, size), interpolation=how)
    x1, y1, x2, y2 = (int(edge) for edge in frame)
    out = np.zeros((size, size, 3), np.uint8)
    out[y1:y2, x1:x2] = pixels[y1:y2, x1:x2]
    return out


def motion_blur(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blur along a line of 3 to 15 pixels."""
    length, angle = int(rng.integers(3, 16)), rng.uniform(0, np.pi)
    kernel, middle = np.zeros((length, length), _F32), (length - 1) / 2
    d = np.array([np.cos(angle), np.sin(angle)]) * middle
    ends = [(round(middle + s * d[0]), round(middle + s * d[1])) for s in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    # Without its empty rows and columns: OpenCV goes through a Fourier transform for 130 weights and more, fifty times
    # as slow as what it does with fewer.
    at = length // 2
    (top, bottom), (left, right) = (
        (min(used[0], at), max(used[-1], at) + 1)
        for used in (np.flatnonzero(kernel.any(1)), np.flatnonzero(kernel.any(0)))
    )
    weights = kernel[top:bottom, left:right] / kernel.sum()
    return np.asarray(cv2.filter2D(image, -1, weights, anchor=(int(at - left), int(at - top))), np.uint8)


def _jpeg(image: UInt8[NDArray[np.uint8], "s s 3"], quality: int) -> UInt8[NDArray[np.uint8], "s s 3"]:
    """Through a JPEG file and back."""
    _, file = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    decoded = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def _veil(image: Array32, strength: float, middle: NDArray[np.float64], reach: float) -> None:
    """Scattered light of a sun at `middle` (x, y px), in place; image 0 to 128, white."""
    axis = np.arange(len(image), dtype=_F32)
    far = ((axis - _F32(middle[0])) ** 2 + (axis[:, None] - _F32(middle[1])) ** 2) * _F32(1 / reach**2)
    bright = spread(np.asarray(_F32(strength) * (_F32(0.35) + _F32(0.65) / (1 + 4 * far)), _F32))
    image *= 1 - bright
    image += 128 * bright
