"""What a looks file holds (tools/assets/build_looks.py): photographic skins, clothes, shoes and hair for one body."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8
from numpy.typing import NDArray

from dpmesh.body.array_files import load_npz
from dpmesh.data.synthetic.photo_textures import Levels, levels
from dpmesh.errors import InputError

_F32 = np.float32
_LARGEST = 256 * 2**20
_HOW = "Make it with tools/assets/build_looks.py (docs/guide/data.md)."
Array32 = NDArray[np.float32]


@dataclass(frozen=True)
class Piece:
    """A piece of clothing or hair. template (v, 3) metres, rest pose; shapedirs (10, v * 3) as the body's.

    nearest (v,): the body's vertex whose pose correctives it shares; hides (F,): body faces that lie under it, covers
    (V,): vertices that only such faces use. part (f,): the joint that moves a face most; level: mean brightness of its
    texture, which is number `texture`.
    """

    name: str
    template: Float32[Array32, "v 3"]
    shapedirs: Float32[Array32, "10 w"]
    faces: Int32[NDArray[np.int32], "f 3"]
    uv: Float32[Array32, "f 6"]
    bones: Int32[NDArray[np.int32], "v b"]
    weights: Float32[Array32, "v b"]
    nearest: Int32[NDArray[np.int32], "v"]
    hides: Bool[NDArray[np.bool_], "F"]
    covers: Bool[NDArray[np.bool_], "V"]
    part: UInt8[NDArray[np.uint8], "f"]
    texture: int
    level: float


@dataclass(frozen=True)
class LooksFile:
    """textures: all of the file's; uv (F, 6) of the body's faces; skins: name -> texture; the pieces of each kind."""

    textures: Levels
    uv: Float32[Array32, "F 6"]
    skins: dict[str, int]
    clothes: tuple[Piece, ...]
    shoes: tuple[Piece, ...]
    hair: tuple[Piece, ...]


@lru_cache(maxsize=2)
def load_looks(path: Path) -> LooksFile:
    """Raises InputError where the file is missing or damaged. The arrays are shared: read only."""
    arrays: dict[str, Any] = dict(load_npz(path, _LARGEST))
    try:
        names = {kind: [str(n) for n in arrays[kind]] for kind in ("skins", "clothes", "shoes", "hair")}
        order = [name for kind in names.values() for name in kind]
        images = {name: _decoded(arrays[f"{name}.texture"]) for name in order}
        faces = np.asarray(arrays["body_faces"], np.int32)
        pieces = {
            kind: tuple(_piece(arrays, name, order.index(name), images[name], faces) for name in names[kind])
            for kind in ("clothes", "shoes", "hair")
        }
        if not all(names.values()):
            raise ValueError("a kind of piece is missing")
        return LooksFile(
            levels(list(images.values())), _uv(arrays["uv"], len(faces)),
            {name: order.index(name) for name in names["skins"]}, **pieces,
        )  # fmt: skip
    except (KeyError, ValueError, TypeError, IndexError, cv2.error) as error:
        raise InputError(f"is no looks file ({error})", where=str(path), fix=_HOW) from None


def refuse_other_body(looks: LooksFile, faces: int, path: Path) -> None:
    """Raises InputError where the looks are not of a body with so many faces."""
    if len(looks.uv) != faces:
        raise InputError("the looks are of another body", where=str(path), fix=_HOW)


def _decoded(data: NDArray[np.uint8]) -> UInt8[NDArray[np.uint8], "s s 3"]:
    image = cv2.imdecode(np.asarray(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None or image.shape[0] != image.shape[1] or image.shape[0] > 2048:
        raise ValueError("a texture is damaged")
    return np.ascontiguousarray(image[..., ::-1], np.uint8)


def _uv(quantized: NDArray[np.uint16], faces: int) -> Float32[Array32, "f 6"]:
    return np.asarray(np.reshape(quantized, (faces, 6)) / 65535, _F32)


def _piece(
    arrays: dict[str, Any], name: str, texture: int, image: NDArray[np.uint8], body: Int32[NDArray[np.int32], "F 3"]
) -> Piece:  # fmt: skip
    template, shapedirs, triangles, bones, weights, nearest, hides = (
        arrays[f"{name}.{key}"]
        for key in ("template", "shapedirs", "faces", "bones", "weights", "nearest", "hides")
    )
    v, vertices = len(template), int(body.max()) + 1
    _below(v, triangles)
    _below(vertices, nearest)
    _below(24, bones)
    if bones.shape != weights.shape or len(bones) != v or nearest.shape != (v,):
        raise ValueError(f"the arrays of {name} do not fit together")
    hidden = np.unpackbits(hides, count=len(body)).astype(np.bool_)
    covers = np.ones(vertices, np.bool_)
    covers[body[~hidden]] = False
    uv = _uv(arrays[f"{name}.uv"], len(triangles))
    middle = np.clip(uv.reshape(-1, 3, 2).mean(1), 0, 0.999) * len(image)
    x, y = middle[:, 0].astype(np.int64), len(image) - 1 - middle[:, 1].astype(np.int64)
    return Piece(
        name, np.reshape(template, (v, 3)).astype(_F32), np.ascontiguousarray(np.reshape(shapedirs, (10, v * 3)), _F32),
        np.reshape(triangles, (-1, 3)).astype(np.int32), uv, bones.astype(np.int32), weights.astype(_F32),
        nearest.astype(np.int32), hidden, covers, bones[triangles[:, 0], 0].astype(np.uint8), texture,
        max(float(image[y, x].mean()) / 255, 0.03),
    )  # fmt: skip


def _below(limit: int, indices: NDArray[np.integer]) -> None:
    """ValueError for an index that is out of range: the compiled loops do not check."""
    if indices.dtype.kind not in "iu" or (indices.size and not 0 <= indices.min() <= indices.max() < limit):
        raise ValueError("an index is out of range")
