"""Colours of skin, hair and clothes for the vertices of a body, and the thickness that clothes and hair add.

Nothing is drawn from pictures: a garment is a set of body parts with seams along the limbs, a colour and a
pattern over the rest pose.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from dpmesh.data.synthetic.body import FastBody
from dpmesh.render.compiled import compiled
from dpmesh.skeletons import JOINTS30, SMPL24

_F32 = np.float32
Array32 = NDArray[np.float32]

_SKIN = (
    np.array([[255, 226, 205], [241, 199, 168], [224, 172, 135], [190, 132, 95], [138, 88, 60], [84, 54, 40]])
    / 255
)
_HAIR = (
    np.array(
        [
            [22, 18, 16],
            [45, 30, 22],
            [85, 55, 35],
            [150, 110, 65],
            [200, 170, 120],
            [150, 150, 150],
            [120, 50, 25],
        ]
    )
    / 255
)
_CLOTH = np.array([[20, 20, 24], [235, 235, 232], [128, 128, 130], [35, 45, 80], [70, 95, 135], [150, 30, 35],
                   [60, 80, 60], [190, 170, 140], [90, 70, 55]]) / 255  # fmt: skip

# A bone for the way along each part: from the joint of that name to this one.
_BONES = {
    "Pelvis": "Torso", "L_Hip": "L_Knee", "R_Hip": "R_Knee", "Torso": "Spine", "L_Knee": "L_Ankle",
    "R_Knee": "R_Ankle", "Spine": "Chest", "L_Ankle": "L_Toe", "R_Ankle": "R_Toe", "Chest": "Neck",
    "Neck": "Head",
    "L_Thorax": "L_Shoulder", "R_Thorax": "R_Shoulder", "L_Shoulder": "L_Elbow", "R_Shoulder": "R_Elbow",
    "L_Elbow": "L_Wrist", "R_Elbow": "R_Wrist", "L_Wrist": "L_Hand", "R_Wrist": "R_Hand",
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """colour (v, 3) RGB in [0, 1]; thickness (v, 3) metres, to add to the rest pose."""

    colour: Float32[NDArray[np.float32], "v 3"]
    thickness: Float32[NDArray[np.float32], "v 3"]


class Wardrobe:
    """Dresses one body: what is fixed about its vertices is worked out once."""

    def __init__(self, body: FastBody) -> None:
        self._rest = body.template
        self._normals = vertex_normals(body.template, body.faces)
        self._part = body.part
        along = np.zeros(len(body.template), _F32)
        for start, end in _BONES.items():
            here = self._is(start)
            a, b = (body.rest_joints[SMPL24.index(name)] for name in (start, end))
            along[here] = (body.template[here] - a) @ (b - a) / max(float((b - a) @ (b - a)), 1e-6)
        self._along = along
        landmarks, _ = body.joints(np.zeros((1, 10), _F32), np.tile(np.eye(3, dtype=_F32), (1, 24, 1, 1)))
        face = {name: landmarks[0, JOINTS30.index(name)] for name in JOINTS30.joints[24:]}
        ears = (face["L_Ear"] + face["R_Ear"]) / 2
        height, front = (float(np.linalg.norm(face[name] - ears)) for name in ("Head_top", "Nose"))
        # Heights above the ears in units of the top of the head, and forward of them in units of the nose.
        self._up = (body.template[:, 1] - ears[1]) / max(height, 1e-6)
        self._front = (body.template[:, 2] - ears[2]) / max(front, 1e-6)
        self._eyes = self._near(face["L_Eye"], 0.016) | self._near(face["R_Eye"], 0.016)
        mouth = face["Nose"] - np.array([0, 0.3 * height, 0.1 * front], _F32)
        self._mouth = self._near(mouth, 0.024)
        self._head = self._is("Head")

    def _is(self, *names: str) -> NDArray[np.bool_]:
        return np.array([name in names for name in SMPL24.joints])[self._part]

    def _near(self, point: Array32, radius: float) -> NDArray[np.bool_]:
        return np.linalg.norm(self._rest - point, axis=1) < radius

    def _to(self, until: float, *names: str) -> NDArray[np.bool_]:
        """The parts of these names up to the fraction `until` of their length."""
        return self._is(*names) & (self._along < until)

    def dress(self, rng: np.random.Generator) -> Look:
        """A random person's look."""
        tone = rng.uniform(0, len(_SKIN) - 1)
        skin = np.array([np.interp(tone, np.arange(len(_SKIN)), _SKIN[:, c]) for c in range(3)])
        skin *= rng.uniform(0.92, 1.06, 3)
        colour = np.empty_like(self._rest)
        colour[:] = skin * 0.96
        colour *= 1 + 0.05 * self._waves(rng, 8.0)[:, None]
        thick = np.zeros(len(colour), _F32)
        colour[self._eyes] *= rng.uniform(0.2, 0.5)
        colour[self._mouth] *= np.array([0.85, 0.55, 0.55], _F32)

        bottom, top, sleeve = rng.random(), rng.random(), rng.random()
        if bottom < 0.65:  # trousers
            legs = self._to(rng.uniform(0.7, 1.2), "L_Knee", "R_Knee") | self._is("L_Hip", "R_Hip")
        else:  # shorts, or very short ones
            legs = self._to(rng.uniform(0.25, 1.0), "L_Hip", "R_Hip")
        hips = self._is("Pelvis")
        self._garment(rng, colour, thick, legs | hips, rng.uniform(0, 0.022))
        feet = self._is("L_Ankle", "R_Ankle", "L_Toe", "R_Toe")
        if rng.random() < 0.9:
            high = self._is("L_Knee", "R_Knee") & (self._along > rng.uniform(0.75, 1.1))
            self._garment(rng, colour, thick, feet | high, rng.uniform(0.003, 0.015), plain=True)

        trunk = self._is("Torso", "Spine", "Chest", "L_Thorax", "R_Thorax") | (
            hips & (self._along > rng.uniform(-0.8, 0.5))
        )
        if top > 0.04:
            if sleeve < 0.45:  # short
                arms = self._to(rng.uniform(0.25, 1.0), "L_Shoulder", "R_Shoulder")
            elif sleeve < 0.9:  # long
                arms = self._is("L_Shoulder", "R_Shoulder") | self._to(
                    rng.uniform(0.3, 1.1), "L_Elbow", "R_Elbow"
                )
            else:
                arms = np.zeros(len(colour), bool)
                trunk = trunk & ~(self._is("L_Thorax", "R_Thorax") & (self._along > rng.uniform(0.3, 0.9)))
            dress = legs & (self._along < rng.uniform(0.3, 0.9)) if rng.random() < 0.12 else arms
            collar = self._to(rng.uniform(-0.5, 0.8), "Neck")
            self._garment(rng, colour, thick, trunk | arms | dress | collar, rng.uniform(0, 0.03))
            if rng.random() < 0.2:  # an open jacket, or a bib: another colour in the middle
                middle = (
                    trunk & (np.abs(self._rest[:, 0]) < rng.uniform(0.03, 0.08)) & (self._normals[:, 2] > 0)
                )
                self._garment(rng, colour, thick, middle, 0.0)
        if rng.random() < 0.04:
            self._garment(
                rng, colour, thick, self._is("L_Wrist", "R_Wrist", "L_Hand", "R_Hand"), 0.003, plain=True
            )
        self._hair(rng, colour, thick)
        return Look(np.clip(colour, 0, 1), self._normals * thick[:, None])

    def _garment(
        self,
        rng: np.random.Generator,
        colour: Array32,
        thick: Array32,
        where: NDArray[np.bool_],
        depth: float,
        plain: bool = False,
    ) -> None:
        """Colour the chosen vertices in place; the pattern follows the rest pose."""
        base = _cloth(rng)
        paint = np.empty((int(where.sum()), 3), _F32)
        paint[:] = base
        kind = 0.0 if plain else rng.random()
        rest = self._rest[where]
        if kind > 0.5:
            axis = rng.choice([0, 1, 1, 2]) if kind < 0.85 else 1
            pitch = rng.uniform(0.03, 0.16)
            stripes = (rest[:, axis] / pitch) % 1 < rng.uniform(0.3, 0.7)
            if kind > 0.75:  # checks
                stripes ^= (rest[:, 0] / pitch) % 1 < 0.5
            if kind > 0.85:  # blots
                stripes = self._waves(rng, rng.uniform(10, 50))[where] > rng.uniform(-0.2, 0.6)
            if kind > 0.93:  # two blocks
                stripes = (
                    rest[:, 1] > np.quantile(rest[:, 1], rng.uniform(0.3, 0.8)) if len(rest) else stripes
                )
            paint[stripes] = _cloth(rng)
        paint *= 1 + rng.uniform(0.02, 0.12) * self._waves(rng, rng.uniform(15, 60))[where][:, None]  # folds
        colour[where] = paint
        thick[where] = depth

    def _hair(self, rng: np.random.Generator, colour: Array32, thick: Array32) -> None:
        line = rng.uniform(0.1, 0.45)
        hair = self._head & (self._up > line + rng.uniform(0.3, 0.55) * np.maximum(self._front, -1.2))
        if rng.random() < 0.3:  # long
            back = self._is("Head", "Neck", "Chest") & (self._front < rng.uniform(-0.3, 0.1))
            hair |= back & (self._up > rng.uniform(-2.2, -0.6))
        kind = rng.random()
        if kind < 0.07:
            return
        base = (
            _HAIR[rng.integers(len(_HAIR))] * rng.uniform(0.8, 1.2) if kind < 0.88 else _cloth(rng)
        )  # else a cap
        colour[hair] = base * (1 + 0.25 * self._waves(rng, 60.0)[hair][:, None])
        thick[hair] = rng.uniform(0.0, 0.03)

    def _waves(self, rng: np.random.Generator, frequency: float) -> Array32:
        """A smooth random function over the rest pose in about [-1, 1]; frequency in radians per metre."""
        directions = rng.standard_normal((3, 3)).astype(_F32) * _F32(frequency)
        phase = rng.uniform(0, 6.28, 3).astype(_F32)
        return np.sin(self._rest @ directions + phase) @ np.full(3, 0.47, _F32)


def _cloth(rng: np.random.Generator) -> NDArray[np.float64]:
    """A cloth's colour: one of the usual, or any."""
    if rng.random() < 0.5:
        return np.clip(_CLOTH[rng.integers(len(_CLOTH))] * rng.uniform(0.8, 1.2, 3), 0.02, 0.98)
    grey = rng.uniform(0.05, 0.95)
    return np.clip(grey + (rng.random(3) - 0.5) * rng.uniform(0.1, 1.0), 0.02, 0.98)


def vertex_normals(
    vertices: Float32[NDArray[np.float32], "v 3"], faces: NDArray[np.int32]
) -> Float32[NDArray[np.float32], "v 3"]:
    """Unit normals, outward for counter-clockwise faces; area-weighted."""
    out = np.zeros_like(vertices)
    _normals(vertices, faces, out)
    return out


@compiled
def _normals(vertices: Array32, faces: NDArray[np.int32], out: Array32) -> None:
    for f in range(faces.shape[0]):
        p, q, r = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        ax, ay, az = q[0] - p[0], q[1] - p[1], q[2] - p[2]
        bx, by, bz = r[0] - p[0], r[1] - p[1], r[2] - p[2]
        for k in range(3):
            at = out[faces[f, k]]
            at[0] += ay * bz - az * by
            at[1] += az * bx - ax * bz
            at[2] += ax * by - ay * bx
    for v in range(out.shape[0]):
        length = np.sqrt(out[v, 0] ** 2 + out[v, 1] ** 2 + out[v, 2] ** 2)
        for k in range(3):
            out[v, k] /= max(length, np.float32(1e-12))
