"""Light on surfaces, and what a camera and a file do to a picture."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

import cv2
import numpy as np
from jaxtyping import Float32, Int32, UInt8
from numpy.typing import NDArray

from dpmesh.data.synthetic.backdrop import cloud, spread
from dpmesh.render.compiled import compiled
from dpmesh.render.rasterizer import Raster

_F32 = np.float32
Array32 = NDArray[np.float32]


class Light:
    """A lamp from somewhere above, light from all around, a bounce from below, and a colour cast."""

    def __init__(self, rng: np.random.Generator) -> None:
        # Camera frame: rather from above and from the camera's side.
        direction = rng.normal((0, -1.2, -0.8), 1)
        self.direction: Array32 = (direction / np.linalg.norm(direction)).astype(_F32)
        ambient = rng.uniform(0.3, 0.8)
        self.ambient = float(ambient)
        self.lamp = float(rng.uniform(0.3, 1.25 - ambient))
        self.gloss = float(rng.uniform(0, 0.12))
        self.cast: Array32 = (1 + rng.normal(0, 0.05, 3)).astype(_F32)


def shade(
    image: Float32[NDArray[np.float32], "h w 3"],
    raster: Raster,
    faces: Int32[NDArray[np.int32], "f 3"],
    colour: Float32[NDArray[np.float32], "v 3"],
    normals: Float32[NDArray[np.float32], "v 3"],
    light: Light,
) -> None:
    """Draw the seen surfaces over `image`, in place."""
    _shade(
        image, raster.face, raster.bary, faces,
        np.ascontiguousarray(colour, _F32), np.ascontiguousarray(normals, _F32),
        light.direction, light.cast, light.ambient, light.lamp, light.gloss,
    )  # fmt: skip


def photograph(
    rng: np.random.Generator,
    image: Float32[NDArray[np.float32], "s s 3"],
    frame: Float32[NDArray[np.float32], "4"],
) -> UInt8[NDArray[np.uint8], "s s 3"]:
    """Shadow, exposure, defocus, low resolution, noise, JPEG; black outside `frame` (x1 y1 x2 y2 px)."""
    size = len(image)
    if rng.random() < 0.25:
        shadow = cloud(rng, size, int(rng.integers(2, 7)), 1)[..., 0] * _F32(rng.uniform(0.1, 0.35))
        image = np.asarray(image * spread(1 + shadow), _F32)
    if rng.random() < 0.3:
        grey = spread(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), _F32))
        strength = rng.choice([0.0, 0.5, 0.7, 1.3], p=[0.12, 0.3, 0.3, 0.28])
        image = np.asarray(grey + (image - grey) * _F32(strength), _F32)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), abs(rng.normal(0.45, 0.35)) + 0.3), _F32)
    if rng.random() < 0.25:
        small = int(rng.uniform(72, 200))
        little = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(little, (size, size)), _F32)
    contrast, brightness = rng.uniform(0.75, 1.2), rng.normal(0, 0.03) + 0.5
    grain = rng.standard_normal((size, size), _F32) * _F32(abs(rng.normal(0, 0.014)) * 255)
    grain += _F32((brightness - 0.5 * contrast) * 255 + 0.5)
    image = image * _F32(contrast * rng.uniform(0.75, 1.2) * 255) + spread(grain)
    picture = np.clip(image, 0, 255, out=image).astype(np.uint8)
    if rng.random() < 0.5:
        curve = np.linspace(0, 1, 256) ** np.exp(rng.normal(0, 0.2))
        picture = np.asarray(cv2.LUT(picture, (curve * 255 + 0.5).astype(np.uint8)), np.uint8)
    if rng.random() < 0.7:
        picture = _jpeg(picture, int(rng.integers(25, 96)))
    x1, y1, x2, y2 = (int(edge) for edge in frame)
    out = np.zeros_like(picture)
    out[y1:y2, x1:x2] = picture[y1:y2, x1:x2]
    return out


def _jpeg(picture: UInt8[NDArray[np.uint8], "s s 3"], quality: int) -> UInt8[NDArray[np.uint8], "s s 3"]:
    """Through a JPEG file and back."""
    _, file = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    decoded = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)
    return decoded[..., ::-1]


@compiled
def _shade(
    image: Array32, face: NDArray[np.int32], bary: Array32, faces: NDArray[np.int32],
    colour: Array32, normals: Array32,
    direction: Array32, cast: Array32, ambient: float, lamp: float, gloss: float,
) -> None:  # fmt: skip
    height, width = face.shape
    n = np.empty(3, np.float32)
    for i in range(height):
        for j in range(width):
            f = face[i, j]
            if f < 0:
                continue
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            length = 1e-9
            for k in range(3):
                n[k] = (
                    bary[i, j, 0] * normals[a, k]
                    + bary[i, j, 1] * normals[b, k]
                    + bary[i, j, 2] * normals[c, k]
                )
                length += n[k] * n[k]
            facing = (n[0] * direction[0] + n[1] * direction[1] + n[2] * direction[2]) / np.sqrt(length)
            up = -n[1] / np.sqrt(length)
            level = ambient * (0.85 + 0.15 * up) + lamp * max(facing, 0.0)
            shine = gloss * max(facing, 0.0) ** 16
            for k in range(3):
                value = (
                    bary[i, j, 0] * colour[a, k] + bary[i, j, 1] * colour[b, k] + bary[i, j, 2] * colour[c, k]
                )
                image[i, j, k] = value * level * cast[k] + shine
