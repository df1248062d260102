"""Photographic skins, clothes, hair and shoes on the free body, from a file that tools/assets/build_looks.py makes.

Beside the procedural clothes (clothes.py), not in their place: some people wear these clothes, some the procedural ones
on a photographic skin. Clothes belong to the person as the body does; hair hangs on it, as in accessories.py.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from dpmesh.data.synthetic.body import FastBody
from dpmesh.data.synthetic.clothes import Outfit
from dpmesh.data.synthetic.looks_file import Piece, load_looks, refuse_other_body
from dpmesh.data.synthetic.materials import (
    GLOSS,
    HAIR,
    PHOTO,
    PHOTO_SKIN,
    Material,
    U,
    V,
    between,
    cloth_colour,
    material,
)
from dpmesh.data.synthetic.photo_textures import Levels
from dpmesh.data.synthetic.primitives import NOWHERE, Mesh, join
from dpmesh.data.synthetic.skinning import skinned
from dpmesh.render.shading import vertex_normals

_F32 = np.float32
Array32 = NDArray[np.float32]
T = TypeVar("T")

SHARE = 0.5
"""Of the people with photographic skin, those who wear the file's clothes; the others wear procedural ones."""
_RECOLOURED, _BALD, _BAREFOOT = 0.45, 0.1, 0.08
_MOST_GAIN = 2.5  # above it the texture's bright spots stand out
_MIXED = 0.08  # women in men's clothes, and the other way round
_LONG_HAIR = ("bob", "braid", "long", "pony")


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
        file = load_looks(path)
        refuse_other_body(file, len(body.faces), path)
        self._body, self._uv = body, file.uv
        self._part = body.part[body.faces[:, 0]].astype(np.uint8)
        self.textures: Levels = file.textures
        self._shoes = file.shoes
        self._skins = _of_women(file.skins.items(), lambda name: "female" in name)
        self._clothes = _of_women(_named(file.clothes), lambda name: name.startswith("female"))
        self._hair = _of_women(_named(file.hair), lambda name: name.lower().startswith(_LONG_HAIR))

    def choose(self, rng: np.random.Generator, outfit: Outfit, woman: bool) -> Look:
        """A random look. outfit: where eyes and mouth are, in its last paint, the procedural skin."""
        if rng.random() < _MIXED:
            woman = not woman
        own, skins = outfit.paints[-1], self._skins[woman]
        tone = between(rng, 0.85, 1.15) * rng.uniform(0.96, 1.04, 3)
        texture = skins[int(rng.random() * len(skins))]
        skin = material(
            PHOTO_SKIN,
            tone,
            (float(texture), 0.0, 0.0),
            grain=0.0,
            gloss=float(own[GLOSS]),
            duty=between(rng, 0.35, 0.8),
        )
        skin[U : U + 3], skin[V : V + 3] = own[U : U + 3], own[V : V + 3]
        clothed = rng.random() < SHARE
        worn: list[tuple[Piece, Material]] = []
        if clothed:
            worn.append(_painted(rng, self._clothes[woman], _RECOLOURED))
            if rng.random() > _BAREFOOT:
                worn.append(_painted(rng, self._shoes, 0.2))
        hair = None
        if clothed and rng.random() > _BALD:
            short = rng.random() < 0.15 if woman else rng.random() < 0.93
            hair = _painted(rng, self._hair[not short], 0.0, hair=True)
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
        faces, part, uv = body.faces[~hidden], self._part[~hidden], self._uv[~hidden]
        paints = look.skin[None] if look.clothed else np.concatenate([outfit.paints[:-1], look.skin[None]])
        mesh = Mesh(
            vertices, faces, vertex_normals(vertices, body.faces), body.template, np.zeros(len(faces), np.int32),
            np.array([0, len(paints)], np.int32), NOWHERE if look.clothed else outfit.regions, paints, uv,
        )  # fmt: skip
        worn = [(_not_under(piece, look.worn[:k]), paint) for k, (piece, paint) in enumerate(look.worn)]
        meshes = [mesh, *(_placed(*one, betas, added, moves, transl) for one in worn)]
        hair = _placed(*look.hair, betas, added, moves, transl) if look.hair else None
        part = np.concatenate([part, *(piece.part for piece, _ in worn)])
        return Dressed(join(meshes), hair, part, not worn)


def _named(pieces: Iterable[Piece]) -> list[tuple[str, Piece]]:
    return [(piece.name, piece) for piece in pieces]


def _of_women(named: Iterable[tuple[str, T]], theirs: Callable[[str], bool]) -> dict[bool, list[T]]:
    """What is women's (True) and what is men's, by its name."""
    kept = list(named)
    return {woman: [one for name, one in kept if theirs(name) == woman] for woman in (False, True)}


def bare(outfit: Outfit) -> Outfit:
    """The outfit without anything that hangs from it, for the accessories of a person in the file's clothes."""
    return replace(outfit, skirt="none", long=False)


def _not_under(piece: Piece, clothes: tuple[tuple[Piece, Material], ...]) -> Piece:
    """The piece without the faces that lie under other clothes: socks under trousers."""
    keep = np.ones(len(piece.faces), np.bool_)
    for over, _ in clothes:
        keep &= ~over.covers[piece.nearest[piece.faces]].all(1)
    return replace(piece, faces=piece.faces[keep], uv=piece.uv[keep], part=piece.part[keep])


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
    rng: np.random.Generator, pieces: Sequence[Piece], recoloured: float, hair: bool = False
) -> tuple[Piece, Material]:
    """One of the pieces in its own colours or, with a probability, another cloth's; hair in a hair's."""
    piece = pieces[int(rng.random() * len(pieces))]
    gain, grey = np.full(3, between(rng, 0.8, 1.25)), 0.0
    if hair or rng.random() < recoloured:
        colour = HAIR[rng.integers(len(HAIR))] if hair else np.array(cloth_colour(rng))
        gain, grey = colour * between(rng, 0.8, 1.2) / piece.level, between(rng, 0.8, 1.0)
    folds, gloss = 0.0 if hair else between(rng, 0.0, 0.15), max(between(rng, -0.1, 0.15), 0.0)
    gain, number = np.minimum(gain, _MOST_GAIN), (float(piece.texture), 0.0, 0.0)
    return piece, material(PHOTO, gain, number, grain=0.0, duty=grey, folds=folds, gloss=gloss)
