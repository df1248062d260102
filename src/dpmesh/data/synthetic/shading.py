"""Shades a raster: the material at each pixel, soft and hard light, ambient occlusion in corners."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

import cv2
import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from dpmesh.data.synthetic.clothes import inside
from dpmesh.data.synthetic.lighting import Light
from dpmesh.data.synthetic.materials import FOLDS, GLOSS, KIND, NOISE, PHOTO, noise_at, paint
from dpmesh.data.synthetic.photo_textures import NO_TEXTURES, Levels, photo
from dpmesh.data.synthetic.primitives import Mesh
from dpmesh.render.rasterizer import Raster
from dpmesh.render.typed import compiled_fast

_F32 = np.float32
_NO_UV = np.zeros((0, 6), _F32)
Array32 = NDArray[np.float32]
Array64 = NDArray[np.float64]


def shade(
    image: Float32[Array32, "h w 3"], raster: Raster, mesh: Mesh, light: Light, focal: float,
    textures: Levels = NO_TEXTURES,
) -> None:  # fmt: skip
    """Draw the visible surfaces over `image`, in place. Two-sided: a normal that faces away is negated."""
    # The tables have the precision of the computation: converting for each pixel takes an eighth longer.
    regions, paints, harmonics, sun, hard = (
        np.asarray(table, np.float64)
        for table in (mesh.regions, mesh.paints, light.harmonics, light.direction, light.hard)
    )
    _shade(
        image, raster.depth, raster.face, raster.bary, mesh.faces, mesh.place, mesh.normals, mesh.outfit, mesh.starts,
        regions, paints, harmonics, sun, hard, NOISE, focal, corners(raster.depth),
        _NO_UV if mesh.uv is None else mesh.uv, *textures,
    )  # fmt: skip


def corners(depth: Float32[Array32, "s s"]) -> Float32[Array32, "s s"]:
    """Approximate ambient occlusion: a factor from 0.55 to 1, lower where a pixel lies deeper than its surroundings.

    Depth against its own mean over some twenty pixels, at quarter size; the background counts as a metre behind.
    """
    small = depth[1::4, 1::4]
    covered = np.isfinite(small)
    far = (float(small[covered].max()) if covered.any() else 1.0) + 1.0
    small = np.where(covered, small, far).astype(_F32)
    deeper = small - cv2.blur(small, (5, 5))
    # Corners up to 15 cm deep count in full; a surface half a metre in front of another does not darken it.
    factor = 1 - 0.45 * _share(deeper / 0.1) * _share((0.3 - deeper) / 0.15)
    return np.asarray(cv2.resize(factor.astype(_F32), depth.shape[::-1]), _F32)


def _share(values: Array32) -> Array32:
    """Between 0 and 1."""
    return np.minimum(np.maximum(values, 0), 1)


@compiled_fast
def lit(h: Array64, k: int, x: float, y: float, z: float) -> float:
    """Soft light of one channel on a surface of normal (x, y, z): lights.Light.harmonics."""
    return (
        h[k, 0] + h[k, 1] * x + h[k, 2] * y + h[k, 3] * z + h[k, 4] * x * x + h[k, 5] * y * y + h[k, 6] * z * z
        + h[k, 7] * x * y + h[k, 8] * x * z + h[k, 9] * y * z
    )  # fmt: skip


@compiled_fast
def _mixed(
    values: Array32, a: int, b: int, c: int, wa: float, wb: float, wc: float
) -> tuple[float, float, float]:
    """Values between a triangle's corners."""
    return (
        wa * values[a, 0] + wb * values[b, 0] + wc * values[c, 0],
        wa * values[a, 1] + wb * values[b, 1] + wc * values[c, 1],
        wa * values[a, 2] + wb * values[b, 2] + wc * values[c, 2],
    )


@compiled_fast
def _shade(
    image: Array32, depth: Array32, face: NDArray[np.int32], bary: Array32, faces: NDArray[np.int32], place: Array32,
    normals: Array32, outfit: NDArray[np.int32], starts: NDArray[np.int32], regions: Array64, paints: Array64,
    harmonics: Array64, sun: Array64, hard: Array64, table: Array32, focal: float, corner: Array32, uv: Array32,
    fine: NDArray[np.uint8], coarse: NDArray[np.uint8], coarsest: NDArray[np.uint8],
) -> None:  # fmt: skip
    height, width = face.shape
    for i in range(height):
        for j in range(width):
            f = face[i, j]
            if f < 0:
                continue
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            wa, wb, wc = bary[i, j, 0], bary[i, j, 1], bary[i, j, 2]
            px, py, pz = _mixed(place, a, b, c, wa, wb, wc)
            x, y, z = _mixed(normals, a, b, c, wa, wb, wc)
            layer = int(starts[outfit[f]])
            while layer < starts[outfit[f] + 1] - 1 and inside(regions, layer, px, py, pz) <= 0:
                layer += 1
            fade = min(1.0, 0.02 * focal / depth[i, j])  # a pixel of 2 cm sees half of what is finer
            if paints[layer, KIND] >= PHOTO:
                u = wa * uv[f, 0] + wb * uv[f, 2] + wc * uv[f, 4]
                v = wa * uv[f, 1] + wb * uv[f, 3] + wc * uv[f, 5]
                colour = photo(fine, coarse, coarsest, paints, layer, u, v, px, py, pz, depth[i, j] / focal)
            else:
                colour = paint(table, paints, layer, px, py, pz, fade)
            if paints[layer, FOLDS] > 0:  # wrinkles tilt the normal a little
                fold = paints[layer, FOLDS] * noise_at(table, 1.7 * px + 0.5 * py, 0.7 * py + pz)
                x += 1.6 * fold
                y -= 1.2 * fold
            # Towards the camera, as the ray sees it.
            rx, ry = (j - 0.5 * width) / focal, (i - 0.5 * height) / focal
            size = 1 / np.sqrt(x * x + y * y + z * z + 1e-12)
            if x * rx + y * ry + z > 0:
                size = -size
            x, y, z = x * size, y * size, z * size
            facing = x * sun[0] + y * sun[1] + z * sun[2]
            shine = 0.0
            if facing > 0 and paints[layer, GLOSS] > 0:  # the half vector between the sun and a viewer at -z
                hx, hy, hz = sun[0], sun[1], sun[2] - 1
                half = max((x * hx + y * hy + z * hz) / np.sqrt(hx * hx + hy * hy + hz * hz + 1e-6), 0.0)
                half *= half
                half *= half
                half *= half  # to the eighth
                shine = paints[layer, GLOSS] * half * half * half
            shadow = 0.5 + 0.5 * corner[i, j]
            for k in range(3):
                light = lit(harmonics, k, x, y, z) * corner[i, j] + hard[k] * max(facing, 0.0) * shadow
                image[i, j, k] = colour[k] * max(light, 0.02) + shine * hard[k]
