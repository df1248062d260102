"""Photographic textures at three resolutions, and the colour of a surface point from them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from dpmesh.data.synthetic.materials import DUTY, KIND, PHOTO_SKIN, A, B, U
from dpmesh.render.typed import compiled_fast

Array32 = NDArray[np.float32]
Levels = tuple[
    UInt8[NDArray[np.uint8], "n s s 3"],
    UInt8[NDArray[np.uint8], "n t t 3"],
    UInt8[NDArray[np.uint8], "n u u 3"],
]
"""All textures, sRGB, at full, half and quarter size. Row 0 is v = 1."""

TEXEL = 0.0045
"""Metres of a body that one texel of the full size covers, roughly: coarser levels where a pixel covers more."""

NO_TEXTURES: Levels = tuple(np.zeros((1, 1, 1, 3), np.uint8) for _ in range(3))  # pyright: ignore[reportAssignmentType]


def levels(images: list[UInt8[NDArray[np.uint8], "s s 3"]]) -> Levels:
    """The textures (sRGB) of one size, and their halves and quarters."""
    return _scaled(images, 1), _scaled(images, 2), _scaled(images, 4)


def _scaled(images: list[NDArray[np.uint8]], k: int) -> NDArray[np.uint8]:
    size = (len(images[0]) // k,) * 2
    return np.asarray([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images], np.uint8)


@compiled_fast
def _between(images: NDArray[np.uint8], n: int, u: float, v: float) -> tuple[float, float, float]:
    """Bilinear, in [0, 1]; the border's texel beyond it."""
    size = images.shape[1]
    x, y = u * size - 0.5, (1.0 - v) * size - 0.5
    j, i = int(np.floor(x)), int(np.floor(y))
    b, a = x - j, y - i
    j0, j1 = min(max(j, 0), size - 1), min(max(j + 1, 0), size - 1)
    i0, i1 = min(max(i, 0), size - 1), min(max(i + 1, 0), size - 1)
    w00, w01, w10, w11 = (1 - a) * (1 - b) / 255, (1 - a) * b / 255, a * (1 - b) / 255, a * b / 255
    p, q, r, s = images[n, i0, j0], images[n, i0, j1], images[n, i1, j0], images[n, i1, j1]
    return (
        w00 * p[0] + w01 * q[0] + w10 * r[0] + w11 * s[0],
        w00 * p[1] + w01 * q[1] + w10 * r[1] + w11 * s[1],
        w00 * p[2] + w01 * q[2] + w10 * r[2] + w11 * s[2],
    )


@compiled_fast
def photo(
    full: NDArray[np.uint8], half: NDArray[np.uint8], quarter: NDArray[np.uint8], paints: NDArray[np.floating],
    m: int, u: float, v: float, x: float, y: float, z: float, pixel: float,
) -> tuple[float, float, float]:  # fmt: skip
    """The colour of material m at (u, v), which lies at the place (x, y, z). pixel: metres that one covers."""
    n = int(paints[m, B])
    if pixel < TEXEL:
        red, green, blue = _between(full, n, u, v)
    elif pixel < 2 * TEXEL:
        red, green, blue = _between(half, n, u, v)
    else:
        red, green, blue = _between(quarter, n, u, v)
    if paints[m, KIND] == PHOTO_SKIN:
        dx, dy, dz = abs(x) - paints[m, U], y - paints[m, U + 1], z - paints[m, U + 2]
        apart = dx * dx * 0.4 + dy * dy * 2 + dz * dz
        if apart < 0.00009:
            if dx * dx + dy * dy < 0.00003:
                red, green, blue = 0.1, 0.07, 0.05
            else:
                red, green, blue = 0.75, 0.72, 0.7
        elif abs(dx) < 0.02 and abs(dy - 0.021) < 0.004 and abs(dz) < 0.03:
            red, green, blue = red * paints[m, DUTY], green * paints[m, DUTY], blue * paints[m, DUTY]
    else:
        grey, share = 0.3 * red + 0.59 * green + 0.11 * blue, paints[m, DUTY]
        red, green, blue = (
            red + (grey - red) * share,
            green + (grey - green) * share,
            blue + (grey - blue) * share,
        )
    return (
        min(red * paints[m, A], 0.98),
        min(green * paints[m, A + 1], 0.98),
        min(blue * paints[m, A + 2], 0.98),
    )
