"""Photographic skins, clothes, hair and shoes on the free body, from a file that tools/assets/build_looks.py makes.

Beside the procedural clothes (clothes.py), not in their place: some people wear these clothes, some the procedural ones
on a photographic skin. Clothes belong to the person as the body does; hair hangs on it, as in accessories.py.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8
from numpy.typing import NDArray

from dpmesh.body.array_files import load_npz
from dpmesh.data.synthetic.body import FastBody, skinned
from dpmesh.data.synthetic.clothes import Outfit
from dpmesh.data.synthetic.materials import (
    HAIR,
    PHOTO,
    PHOTO_SKIN,
    Material,
    U,
    V,
    between,
    cloth_colour,
    material,
)  # fmt: skip
from dpmesh.data.synthetic.photo_textures import Levels, levels
from dpmesh.data.synthetic.primitives import NOWHERE, Mesh, join
from dpmesh.errors import InputError
from dpmesh.render.shading import vertex_normals

_F32 = np.float32
_LARGEST = 256 * 2**20
_HOW = "Make it with tools/assets/build_looks.py (docs/guide/data.md)."
Array32 = NDArray[np.float32]

SHARE = 0.5
"""Of the people with photographic skin, those who wear the file's clothes; the others wear procedural ones."""
_RECOLOURED, _BALD, _BAREFOOT = 0.45, 0.1, 0.08
_MOST_GAIN = 2.5  # above it the texture's bright spots stand out
_MIXED = 0.08  # women in men's clothes, and the other way round
_LONG_HAIR = ("bob", "braid", "long", "pony")


@dataclass(frozen=True)
class Piece:
    """A piece of clothing or hair. template (v, 3) metres, rest pose; shapedirs (10, v * 3) as the body's.

    nearest (v,): the body's vertex whose pose correctives it shares; hides (F,): body faces that lie under it.
    part (f,): the joint that moves a face most; level: mean brightness of its texture.
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
    part: UInt8[NDArray[np.uint8], "f"]
    texture: int
    level: float


@dataclass(frozen=True)
class Dressed:
    """A posed person, camera frame. mesh: body and clothes; hair: what hangs loose, or None; part (f,): the joint that
    moves each face of the mesh most; closed: nothing but the closed surface of the body."""

    mesh: Mesh
    hair: Mesh | None
    part: UInt8[NDArray[np.uint8], "f"]
    closed: bool


@dataclass(frozen=True)
class Look:
    """What one person has from the file. worn: pieces and their materials; hair likewise, or None; clothed: they are
    clothes, and no procedural ones are worn."""

    skin: Material
    worn: tuple[tuple[Piece, Material], ...]
    hair: tuple[Piece, Material] | None
    clothed: bool


class Looks:
    """A looks file for one body. textures: all of the file's."""

    def __init__(self, path: Path, body: FastBody) -> None:
        """Raises InputError where the file is missing, damaged, or of another body."""
        arrays: dict[str, Any] = dict(load_npz(path, _LARGEST))
        self._body = body
        try:
            if int(arrays["vertices"]) != len(body.template) or len(arrays["uv"]) != len(body.faces):
                raise InputError("the looks are of another body", where=str(path), fix=_HOW)
            names = {kind: [str(n) for n in arrays[kind]] for kind in ("skins", "clothes", "shoes", "hair")}
            order = [name for kind in names.values() for name in kind]
            images = [_decoded(arrays[f"{name}.texture"]) for name in order]
            self.textures: Levels = levels(images)
            pieces = {
                name: _piece(arrays, name, order.index(name), images[order.index(name)], len(body.faces))
                for kind in ("clothes", "shoes", "hair") for name in names[kind]
            }  # fmt: skip
            self._uv = _uv(arrays["uv"])
        except (KeyError, ValueError, TypeError, IndexError, cv2.error) as error:
            raise InputError(f"is no looks file ({error})", where=str(path), fix=_HOW) from None
        self._skins = {
            woman: [order.index(n) for n in names["skins"] if ("female" in n) == woman]
            for woman in (False, True)
        }
        self._clothes = {
            woman: [pieces[n] for n in names["clothes"] if n.startswith("female") == woman]
            for woman in (False, True)
        }
        self._shoes = [pieces[n] for n in names["shoes"]]
        self._hair = {
            woman: [pieces[n] for n in names["hair"] if n.lower().startswith(_LONG_HAIR) == woman]
            for woman in (False, True)
        }

    @cached_property
    def _part(self) -> UInt8[NDArray[np.uint8], "F"]:
        return self._body.part[self._body.faces[:, 0]].astype(np.uint8)

    def choose(self, rng: np.random.Generator, outfit: Outfit, woman: bool) -> Look:
        """A random look. outfit: where eyes and mouth are, in its last paint, the procedural skin."""
        if rng.random() < _MIXED:
            woman = not woman
        own, skins = outfit.paints[-1], self._skins[woman]
        skin = material(PHOTO_SKIN, between(rng, 0.85, 1.15) * rng.uniform(0.96, 1.04, 3), (skins[int(rng.random() * len(skins))], 0, 0),
                        grain=0, gloss=float(own[-1]), duty=between(rng, 0.35, 0.8))  # fmt: skip
        skin[U : U + 3], skin[V : V + 3] = own[U : U + 3], own[V : V + 3]
        clothed = rng.random() < SHARE
        worn: list[tuple[Piece, Material]] = []
        if clothed:
            worn.append(_painted(rng, self._clothes[woman], _RECOLOURED, 0.0))
            if rng.random() > _BAREFOOT:
                worn.append(_painted(rng, self._shoes, 0.3, 0.0))
        hair = None
        if clothed and rng.random() > _BALD:
            short = rng.random() < 0.15 if woman else rng.random() < 0.93
            hair = _painted(rng, self._hair[not short], 0.0, 1.0)
        return Look(skin, tuple(worn), hair, clothed)

    def wear(
        self, look: Look, outfit: Outfit, rest: Float32[Array32, "v 3"], betas: Float32[Array32, "10"],
        rotations: Float32[Array32, "24 3 3"], moves: Float32[Array32, "24 3 4"], transl: Float32[Array32, "3"],
    ) -> Dressed:  # fmt: skip
        """The posed person. rest: the surface of the shape, with the procedural clothes where these are worn."""
        body = self._body
        corrected = body.corrected(rest, rotations)
        vertices = body.skinned(corrected, moves, transl)
        added = corrected - rest
        hidden = np.zeros(len(body.faces), np.bool_)
        for piece, _ in look.worn:
            hidden |= piece.hides
        faces, part, uv = (
            rows[~hidden] if hidden.any() else rows for rows in (body.faces, self._part, self._uv)
        )
        paints = look.skin[None] if look.clothed else np.concatenate([outfit.paints[:-1], look.skin[None]])
        mesh = Mesh(
            vertices, faces, vertex_normals(vertices, body.faces), body.template, np.zeros(len(faces), np.int32),
            np.array([0, len(paints)], np.int32), NOWHERE if look.clothed else outfit.regions, paints, uv,
        )  # fmt: skip
        meshes = [mesh, *(_placed(*worn, betas, added, moves, transl) for worn in look.worn)]
        hair = _placed(*look.hair, betas, added, moves, transl) if look.hair else None
        part = np.concatenate([part, *(piece.part for piece, _ in look.worn)])
        return Dressed(join(meshes), hair, part, not look.worn)


def bare(outfit: Outfit) -> Outfit:
    """The outfit without anything that hangs from it, for the accessories of a person in the file's clothes."""
    return replace(outfit, skirt="none", long=False)


def _placed(
    piece: Piece, paint: Material, betas: Array32, added: Array32, moves: Array32, transl: Array32
) -> Mesh:
    """The piece on the posed body. added (V, 3): the pose correctives of the body's vertices."""
    rest = piece.template + (betas @ piece.shapedirs).reshape(-1, 3) + added[piece.nearest]
    vertices = skinned(np.asarray(rest, _F32), moves, transl, piece.bones, piece.weights)
    return Mesh(
        vertices, piece.faces, vertex_normals(vertices, piece.faces), piece.template,
        np.zeros(len(piece.faces), np.int32), np.array([0, 1], np.int32), NOWHERE, paint[None], piece.uv,
    )  # fmt: skip


def _painted(
    rng: np.random.Generator, pieces: list[Piece], recoloured: float, hair: float
) -> tuple[Piece, Material]:
    """One of the pieces in its own colours or, with a probability, another cloth's; hair in a hair's."""
    piece = pieces[int(rng.random() * len(pieces))]
    gain, grey = np.full(3, between(rng, 0.8, 1.25)), 0.0
    if hair or rng.random() < recoloured:
        colour = HAIR[rng.integers(len(HAIR))] if hair else np.array(cloth_colour(rng))
        gain, grey = colour * between(rng, 0.8, 1.2) / piece.level, between(rng, 0.8, 1.0)
    row = material(PHOTO, np.minimum(gain, _MOST_GAIN), (piece.texture, 0, 0), grain=0, duty=grey,
                   folds=0 if hair else between(rng, 0.0, 0.15), gloss=max(between(rng, -0.1, 0.15), 0.0))  # fmt: skip
    return piece, row


def _decoded(data: UInt8[NDArray[np.uint8], "n"]) -> UInt8[NDArray[np.uint8], "s s 3"]:
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("a texture is damaged")
    return np.ascontiguousarray(image[..., ::-1])


def _uv(quantized: NDArray[np.uint16]) -> Float32[Array32, "f 6"]:
    return np.asarray(quantized / 65535, _F32)


def _piece(arrays: dict[str, Any], name: str, texture: int, image: NDArray[np.uint8], faces: int) -> Piece:
    field = {key: arrays[f"{name}.{key}"] for key in
             ("template", "shapedirs", "faces", "uv", "bones", "weights", "nearest", "hides")}  # fmt: skip
    bones, triangles, uv = field["bones"].astype(np.int32), field["faces"].astype(np.int32), _uv(field["uv"])
    size = len(image)
    middle = uv.reshape(-1, 3, 2).mean(1)
    x, y = ((np.clip(c, 0, 0.999) * size).astype(np.int64) for c in (middle[:, 0], 1 - middle[:, 1]))
    return Piece(
        name, field["template"].astype(_F32), np.ascontiguousarray(field["shapedirs"].reshape(10, -1), _F32),
        triangles, uv, bones, field["weights"].astype(_F32), field["nearest"].astype(np.int32),
        np.unpackbits(field["hides"], count=faces).astype(np.bool_),
        bones[triangles[:, 0], 0].astype(np.uint8), texture, max(float(image[y, x].mean()) / 255, 0.03),
    )  # fmt: skip
