"""Accessories and loose clothes: skirts, coats, long hair, hats, glasses, bags, things in the hand.

Each piece is a mesh in the rest pose of the person's own shape, moved by a few joints. Pieces hide joints as
objects do: they are in the z-buffer, and not in the labels of the body's surface (generator.py).
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32
from numpy.typing import NDArray

from dpmesh.data.synthetic.body import FastBody
from dpmesh.data.synthetic.clothes import Outfit
from dpmesh.data.synthetic.materials import Material, cloth, material, surface
from dpmesh.data.synthetic.primitives import Mesh, boxes, thing, turned
from dpmesh.render.shading import vertex_normals
from dpmesh.skeletons import SMPL24

_F32 = np.float32
Array32 = NDArray[np.float32]
_J = SMPL24.index

HAT, GLASSES, BACKPACK, BAG, HELD = 0.14, 0.1, 0.07, 0.06, 0.13
"""Probabilities: by eye from street images; what is held is more frequent, since it hides hands and faces."""


@dataclass(frozen=True)
class Piece:
    """vertices (v, 3), rest pose of the shape; weights (v, 24) of the joints that move them."""

    vertices: Float32[Array32, "v 3"]
    faces: Int32[NDArray[np.int32], "f 3"]
    weights: Float32[Array32, "v 24"]
    paint: Material


class Accessories:
    """Makes pieces to measure; what is fixed about the body is worked out once."""

    def __init__(self, body: FastBody) -> None:
        rest, at = body.template, body.rest_joints
        self._head = np.flatnonzero(body.part == _J("Head"))
        trunk = np.abs(rest[:, 0]) < 0.3
        self._waist = np.flatnonzero(trunk & (np.abs(rest[:, 1] - 0.06) < 0.035))
        self._hips = np.flatnonzero(trunk & (np.abs(rest[:, 1] - at[_J("L_Hip"), 1]) < 0.05))
        self._chest = np.flatnonzero((body.part == _J("Chest")) & (np.abs(rest[:, 0]) < 0.1))

    def pieces(
        self,
        rng: np.random.Generator,
        outfit: Outfit,
        shaped: Float32[Array32, "v 3"],
        joints: Float32[Array32, "24 3"],
    ) -> list[Piece]:
        """A person's loose things. shaped: the rest-pose surface of the shape, joints: its rest joints."""
        out: list[Piece] = []
        if outfit.skirt != "none":
            out.append(self._skirt(rng, outfit, shaped, joints))
        head = shaped[self._head]
        low, high = head.min(0), head.max(0)
        if outfit.long and not outfit.bald:
            out += self._hair(rng, outfit, low, high, joints)
        if rng.random() < HAT:
            out += self._hat(rng, low, high)
        if rng.random() < GLASSES:
            eyes = low[1] + 0.56 * (high[1] - low[1])
            frame = boxes(np.array([[0, eyes, high[2] - 0.032]], _F32), np.array([[0.14, 0.032, 0.02]], _F32),
                          material(0, rng.choice([0.03, 0.2, 0.5]) * np.ones(3), grain=0.0, gloss=0.3))  # fmt: skip
            out.append(_rigid(frame, "Head"))
        if rng.random() < BACKPACK:
            back = float(shaped[self._chest, 2].min())
            size = rng.uniform((0.24, 0.32, 0.1), (0.38, 0.5, 0.22))
            centre = np.array([0, joints[_J("Chest"), 1], back - size[2] / 2 - 0.01])
            out.append(
                _rigid(boxes(centre[None].astype(_F32), size[None].astype(_F32), cloth(rng, True)), "Chest")
            )
        if rng.random() < BAG:
            hips, size = shaped[self._hips], rng.uniform((0.06, 0.16, 0.18), (0.14, 0.32, 0.4))
            side = rng.choice([-1, 1])
            centre = np.array(
                [side * (hips[:, 0].max() + size[0] / 2 + 0.02), hips[:, 1].mean(), rng.normal(0, 0.06)]
            )
            out.append(
                _rigid(boxes(centre[None].astype(_F32), size[None].astype(_F32), cloth(rng)), "Pelvis")
            )
        if rng.random() < HELD:
            out.append(_held(rng, joints))
        return out

    def _skirt(self, rng: np.random.Generator, outfit: Outfit, shaped: Array32, joints: Array32) -> Piece:
        """From the waist down: the upper rings follow the pelvis, the lower ones the thighs, long ones the shins."""
        waist, hips = shaped[self._waist], shaped[self._hips]
        hip, knee, ankle = (float(joints[_J(name), 1]) for name in ("L_Hip", "L_Knee", "L_Ankle"))
        end = (
            rng.uniform(ankle + 0.1, hip - 0.2)
            if outfit.skirt != "coat"
            else rng.uniform(knee - 0.15, hip - 0.25)
        )
        heights = np.concatenate([[waist[:, 1].mean(), hip], np.linspace(hip, end, 7)[1:]])
        ease, flare = rng.uniform(0.012, 0.03), rng.uniform(0.0, 0.45) ** 1.5
        if outfit.skirt == "coat":
            ease += 0.03
        widths = []
        for k in (0, 2):  # half axes across and deep
            ring = [np.abs(band[:, k] - band[:, k].mean()).max() + ease for band in (waist, hips)]
            widths.append(np.array([*ring, *(ring[1] + flare * (hip - heights[2:]))]))
        folds = rng.integers(4, 9), rng.uniform(0.0, 0.12), rng.uniform(0, 6)
        arc = (0.0, 2 * np.pi)
        if outfit.skirt == "coat":
            opening = rng.uniform(0.05, 0.7)
            arc = (opening, 2 * np.pi - opening)
        vertices, faces = turned(heights, *widths, sides=28, arc=arc)
        down = np.clip((waist[:, 1].mean() - vertices[:, 1]) / (waist[:, 1].mean() - knee), 0, 1)
        angle = np.arctan2(vertices[:, 0], vertices[:, 2])
        vertices[:, [0, 2]] *= (1 + down * folds[1] * np.sin(folds[0] * angle + folds[2]))[:, None].astype(
            _F32
        )
        vertices[:, 2] += hips[:, 2].mean()
        leg = np.clip(1.3 * (heights[0] - vertices[:, 1]) / (heights[0] - hip + 0.12), 0, 1) ** 2
        left = np.clip(0.5 + vertices[:, 0] / 0.26, 0, 1)
        shin = 0.85 * np.clip((knee + 0.08 - vertices[:, 1]) / 0.2, 0, 1)
        weights = np.zeros((len(vertices), 24), _F32)
        weights[:, 0] = 1 - leg
        for side, share in (("L", left), ("R", 1 - left)):
            weights[:, _J(f"{side}_Hip")] = leg * share * (1 - shin)
            weights[:, _J(f"{side}_Knee")] = leg * share * shin
        return Piece(vertices, faces, weights, outfit.skirt_paint)

    def _hair(
        self, rng: np.random.Generator, outfit: Outfit, low: Array32, high: Array32, joints: Array32
    ) -> list[Piece]:
        """A bob or long hair as a sheet open at the face; or a bun or a tail at the back."""
        middle, half = (low + high) / 2, (high - low) / 2
        kind, u = rng.random(), rng.uniform
        if kind < 0.25:  # a bun
            r, place = u(0.03, 0.055), np.array([0, middle[1] + half[1] * u(-0.1, 0.9), low[2] - 0.01], _F32)
            return [_rigid(_ball(np.array([r, r, r]), place, outfit.hair), "Head")]
        if kind < 0.5:  # a tail
            length, r = u(0.12, 0.45), u(0.02, 0.05)
            heights = middle[1] + half[1] * u(0.0, 0.5) - np.linspace(0, length, 6)
            radii = r * np.array([0.6, 1, 1, 0.9, 0.7, 0.2])
            vertices, faces = turned(heights, radii, radii, 8)
            vertices[:, 2] += low[2] - 0.03
        else:
            end = float(low[1]) - u(-0.08, 0.38)
            heights = np.concatenate([middle[1] + half[1] * np.array([1.06, 0.92, 0.6, 0.2]),
                                      np.linspace(float(middle[1]) - 0.02, end, 5)])  # fmt: skip
            wide = u(1.08, 1.35)
            shape = np.concatenate([[0.25, 0.7, 0.98, 1.0], np.linspace(1.0, u(0.7, 1.2), 5)]) * wide
            opening = u(0.7, 1.5)
            vertices, faces = turned(heights, shape * half[0], shape * half[2] * 0.95, 16,
                                     (opening, 2 * np.pi - opening))  # fmt: skip
            vertices[:, 2] += middle[2] - 0.012
        neck = float(joints[_J("Neck"), 1])
        body = 0.7 * np.clip((neck + 0.03 - vertices[:, 1]) / 0.15, 0, 1)
        weights = np.zeros((len(vertices), 24), _F32)
        weights[:, _J("Head")], weights[:, _J("Chest")] = 1 - body, body
        return [Piece(vertices, faces, weights, outfit.hair)]

    def _hat(self, rng: np.random.Generator, low: Array32, high: Array32) -> list[Piece]:
        """A dome to the brow; with a brim all round, a peak in front, or neither (a beanie, a helmet)."""
        middle, half = (low + high) / 2, (high - low) / 2
        brow, thick = middle[1] + half[1] * rng.uniform(0.3, 0.6), rng.choice([1.1, 1.25], p=[0.8, 0.2])
        tall, paint = (high[1] - brow) * rng.uniform(1.05, 1.5), cloth(rng, plain=rng.random() < 0.7)
        heights = brow + tall * np.array([0, 0.35, 0.65, 0.88, 1.0])
        shape = thick * np.array([1.0, 0.98, 0.85, 0.55, 0.02])
        vertices, faces = turned(heights, half[0] * shape, half[2] * shape, 14)
        kind, parts = rng.random(), [(vertices, faces)]
        if kind < 0.65:
            brim, arc = rng.uniform(0.04, 0.13), (-1.1, 1.1) if kind < 0.4 else (0.0, 2 * np.pi)
            parts.append(turned(np.array([brow + 0.005, brow - 0.02]), half[0] * thick + np.array([0, brim]),
                                half[2] * thick + np.array([0, brim]), 14, arc))  # fmt: skip
        out = []
        for points, triangles in parts:
            points[:, 2] += middle[2]
            out.append(_rigid(thing(points, triangles, points, paint), "Head"))
        return out


def place_pieces(
    pieces: list[Piece], transforms: Float32[Array32, "24 3 4"], transl: Float32[Array32, "3"]
) -> list[Mesh]:
    """The pieces moved with the posed body (FastBody.transforms), camera frame."""
    flat, out = transforms.reshape(24, 12), []
    for piece in pieces:
        moves = (piece.weights @ flat).reshape(-1, 3, 4)
        vertices = (np.einsum("vrc,vc->vr", moves[..., :3], piece.vertices) + moves[..., 3] + transl).astype(
            _F32
        )
        mesh = thing(vertices, piece.faces, vertex_normals(vertices, piece.faces), piece.paint)
        out.append(
            Mesh(mesh.vertices, mesh.faces, mesh.normals, piece.vertices, mesh.outfit, mesh.starts, mesh.regions,
                 mesh.paints)
        )  # fmt: skip
    return out


def _rigid(mesh: Mesh, joint: str) -> Piece:
    weights = np.zeros((len(mesh.vertices), 24), _F32)
    weights[:, _J(joint)] = 1
    return Piece(mesh.vertices, mesh.faces, weights, mesh.paints[0])


def _ball(half: NDArray[np.floating], centre: Array32, paint: Material) -> Mesh:
    t = np.linspace(-np.pi / 2, np.pi / 2, 7)
    vertices, faces = turned(np.sin(t) * half[1], np.cos(t) * half[0], np.cos(t) * half[2], 10)
    return thing(vertices + centre, faces, vertices, paint)


def _held(rng: np.random.Generator, joints: Array32) -> Piece:
    """A telephone, box, ball, stick, or an open umbrella in one hand."""
    side, kind, u = rng.choice(["L", "R"]), rng.random(), rng.uniform
    palm = joints[_J(f"{side}_Hand")] + np.array([0, -0.04, 0.02], _F32)
    paint = surface(rng, 0.3) if rng.random() < 0.5 else cloth(rng)
    if kind < 0.55:
        size = u(0.04, 0.16, 3) if kind < 0.3 else u(0.12, 0.45, 3)
        mesh = boxes(
            (palm - np.array([0, size[1] * 0.4, 0], _F32))[None].astype(_F32), size[None].astype(_F32), paint
        )
    elif kind < 0.7:
        r = u(0.06, 0.16)
        mesh = _ball(np.array([r, r, r]), (palm - np.array([0, r, 0], _F32)).astype(_F32), paint)
    else:  # along z in the rest pose, which is across the forearm
        length, r = u(0.3, 1.4), u(0.008, 0.03)
        heights, radii = np.array([-0.15, length]), np.array([r, r])
        if kind > 0.92:
            heights, radii = (
                np.array([-0.1, length, length + 0.01, length + 0.3]),
                np.array([r, r, u(0.3, 0.6), 0.02]),
            )
        vertices, faces = turned(heights, radii, radii, 8)
        vertices = vertices[:, [0, 2, 1]] + palm
        mesh = thing(np.ascontiguousarray(vertices, _F32), faces, vertices, paint)
    return _rigid(mesh, f"{side}_Wrist")
