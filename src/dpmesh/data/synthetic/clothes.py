"""Close-fitting clothes as layers on the body: each a region of the rest pose with a material and a thickness.

A region is four half-spaces over (|x|, y, z, 1) of the rest pose, so that seams are exact at every pixel, whatever
the mesh is like. Arms stretch along x in the rest pose, legs along -y: sleeves end at |x|, trousers at y. Loose
pieces (skirts, coats, long hair, hats, bags) are meshes of their own: accessories.py.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from dpmesh.data.synthetic.body import FastBody
from dpmesh.data.synthetic.materials import (
    HAIR,
    NOISE,
    PLAIN,
    Material,
    between,
    cloth,
    cloth_colour,
    material,
    noise_at,
    skin,
)
from dpmesh.render.shading import vertex_normals
from dpmesh.render.typed import compiled
from dpmesh.skeletons import JOINTS30

_F32 = np.float32
Array32 = NDArray[np.float32]
Skirt = Literal["none", "skirt", "dress", "coat"]

LONG, CROPPED, SHORTS = 0.62, 0.08, 0.3
"""Shares of what covers legs; trousers of the first length are the usual ones in images of grown people."""


@dataclass(frozen=True)
class Outfit:
    """Layers from the outermost to the skin, which covers everything.

    regions: a place is inside where all four rows · (|x|, y, z, 1) are positive.
    swell: thickness, and more of it for each metre below a height (rest pose, metres); depth of folds.
    skirt: what hangs from the waist, of the material of layer skirt_of.  hair: its material; long: it hangs.
    """

    regions: Float32[Array32, "l 4 4"]
    paints: Float32[Array32, "l 20"]
    swell: Float32[Array32, "l 4"]
    skirt: Skirt
    skirt_paint: Material
    hair: Material
    long: bool
    bald: bool


class _Layers:
    """Collects layers, outermost first."""

    def __init__(self) -> None:
        self.regions: list[list[tuple[float, float, float, float]]] = []
        self.paints: list[Material] = []
        self.swell: list[tuple[float, float, float, float]] = []

    def add(
        self, paint: Material, planes: list[tuple[float, float, float, float]], thick: float,
        flare: float = 0.0, below: float = 0.0, folds: float = 0.0,
    ) -> None:  # fmt: skip
        self.regions.append([*planes, *[(0.0, 0.0, 0.0, 1.0)] * (4 - len(planes))])
        self.paints.append(paint)
        self.swell.append((thick, flare, below, folds))


class Wardrobe:
    """Dresses one body: what is fixed about its vertices is worked out once."""

    def __init__(self, body: FastBody) -> None:
        self._across = np.ascontiguousarray(body.template.T)
        self._normals = vertex_normals(body.template, body.faces)
        self._creases = np.empty(len(body.template))  # of cloth, by the vertex
        _crease(body.template, NOISE, self._creases)
        landmarks, _ = body.joints(np.zeros((1, 10), _F32), np.tile(np.eye(3, dtype=_F32), (1, 24, 1, 1)))
        self._at = {name: landmarks[0, k] for k, name in enumerate(JOINTS30.joints)}

    def dress(self, rng: np.random.Generator) -> Outfit:
        """The clothes, hair and colours of a random person."""
        at, u = self._at, partial(between, rng)
        y = {name: float(point[1]) for name, point in at.items()}
        across = {name: float(at[f"L_{name}"][0]) for name in ("Shoulder", "Elbow", "Wrist")}
        layers, bare = _Layers(), rng.random() < 0.07  # the upper body
        kind = rng.random()
        skirt: Skirt = (
            "skirt" if kind < 0.08 else "dress" if kind < 0.15 else "coat" if kind < 0.23 else "none"
        )
        hair, long, bald = self._head(rng, layers)

        if rng.random() < 0.06:
            layers.add(
                cloth(rng, plain=True), [(1.0, 0.0, 0.0, -across["Wrist"] + u(-0.05, 0.01))], u(0.002, 0.008)
            )
        if rng.random() < 0.9:  # shoes; one in six high
            high = u(0.1, 0.36) if rng.random() < 0.17 else u(-0.045, 0.05)
            layers.add(cloth(rng, plain=True), [(0.0, -1.0, 0.0, y["L_Ankle"] + high)], u(0.004, 0.02))
        socks = y["L_Ankle"] + (u(0.03, 0.12) if rng.random() < 0.75 else u(0.12, 0.38))

        top, jacket = cloth(rng), cloth(rng, plain=rng.random() < 0.7)
        collar = (0.0, -1.0, 0.0, y["Neck"] + u(-0.06, 0.03))
        neckline = (u(0.2, 1.2), -1.0, -u(0.0, 0.5), y["Neck"] - u(-0.02, 0.09))
        if skirt == "coat" or (not bare and skirt != "dress" and rng.random() < 0.2):
            opening = (1.0, 0.0, -3.0, u(-0.01, 0.1) if rng.random() < 0.6 else 9.0)  # else buttoned up
            layers.add(
                jacket,
                [opening, (-1.0, 0.0, 0.0, across["Wrist"] - u(0.0, 0.06)), (0.0, 1.0, 0.0, -u(-0.12, 0.02)), collar],
                u(0.012, 0.04), folds=u(0.004, 0.014),
            )  # fmt: skip
        sleeve, ends = rng.random(), across["Shoulder"] + u(-0.06, 0.0)
        if sleeve < 0.42:
            ends = u(across["Shoulder"] + 0.03, across["Elbow"] + 0.03)
        elif sleeve < 0.9:
            ends = u(across["Elbow"] + 0.08, across["Wrist"] + 0.02)
        hem = u(-0.1, 0.1) if rng.random() < 0.85 else u(0.1, 0.22)  # a short one shows the belly
        if skirt == "dress":
            hem = -0.12
        loose = rng.beta(1.2, 2.5)  # from skin-tight to baggy
        shirt = ([(0.0, 1.0, 0.0, -hem), (-1.0, 0.0, 0.0, ends), neckline, (0.0, -1.0, 0.0, y["Neck"] + 0.045)],
                 0.003 + 0.03 * loose, u(0, 0.06) * loose, y["Chest"], 0.012 * loose)  # fmt: skip

        cuff, paint = self._legs(rng, y), cloth(rng, plain=rng.random() < 0.75)
        loose = rng.beta(1.2, 2.5)
        trousers = ([(0.0, -1.0, 0.0, u(0.0, 0.11)), (0.0, 1.0, 0.0, -cuff)], 0.003 + 0.016 * loose,
                    u(0, 0.07) * loose, y["L_Hip"], 0.012 * loose)  # fmt: skip
        worn = [] if bare else [(top, shirt)]
        if skirt not in ("skirt", "dress"):
            worn.insert(
                0 if rng.random() < 0.3 else len(worn), (paint, trousers)
            )  # three in ten tuck the shirt in
        elif rng.random() < 0.4:  # tights
            worn.append(
                (
                    material(PLAIN, cloth_colour(rng), grain=0.03),
                    ([(0.0, -1.0, 0.0, 0.0)], 0.002, 0.0, 0.0, 0.0),
                )
            )
        else:
            worn.append((paint, ([(0.0, -1.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.12)], 0.002, 0.0, 0.0, 0.0)))
        for fabric, (planes, thick, flare, below, folds) in worn:
            layers.add(fabric, planes, thick, flare, below, folds)
        layers.add(cloth(rng, plain=True), [(0.0, -1.0, 0.0, socks)], 0.002)
        eyes = np.array([abs(at["L_Eye"][0]), *at["L_Eye"][1:]], _F32)
        mouth = at["Nose"] - np.array([0, 0.035, 0.025], _F32)
        layers.add(skin(rng, eyes, mouth), [], 0.0)
        hanging = jacket if skirt == "coat" else top if skirt == "dress" else cloth(rng)
        return Outfit(
            np.array(layers.regions, _F32), np.stack(layers.paints), np.array(layers.swell, _F32),
            skirt, hanging, hair, long, bald,
        )  # fmt: skip

    def _legs(self, rng: np.random.Generator, y: dict[str, float]) -> float:
        """The height at which trouser legs end."""
        kind, u = rng.random(), partial(between, rng)
        if kind < LONG:
            return y["L_Ankle"] + u(-0.05, 0.04)
        if kind < LONG + CROPPED:
            return u(y["L_Ankle"] + 0.08, y["L_Knee"] - 0.08)
        return (
            u(y["L_Knee"] - 0.04, y["L_Hip"] - 0.1) if kind < LONG + CROPPED + SHORTS else y["L_Hip"] - 0.03
        )

    def _head(self, rng: np.random.Generator, layers: _Layers) -> tuple[Material, bool, bool]:
        """Hair or a bathing cap, a beard: added to the layers. The hair's material, whether it is long, or none."""
        ears = (self._at["L_Ear"] + self._at["R_Ear"]) / 2
        top, nose = float(self._at["Head_top"][1] - ears[1]), float(self._at["Nose"][2] - ears[2])
        kind, u = rng.random(), partial(between, rng)
        base = HAIR[rng.integers(len(HAIR))] * u(0.8, 1.2)
        capped = kind > 0.95
        hair = material(PLAIN, cloth_colour(rng) if capped else base, grain=0.05 if capped else u(0.15, 0.4),
                        grain_pitch=u(4, 9), folds=u(0, 0.3), gloss=u(0, 0.15))  # fmt: skip
        bald, long = kind < 0.09, not capped and rng.random() < 0.38
        if not bald:
            # The hair line falls from the forehead to the neck: height over the ears against distance forward.
            slope = u(0.35, 0.7) * top / nose
            line = ears[1] + u(0.1, 0.42) * top
            plane = (0.0, 1.0, -slope, float(-line + slope * ears[2]))
            nape = (0.0, 1.0, 0.0, float(-self._at["Neck"][1] - u(0.0, 0.06)))
            thick = u(0.0, 0.012) if capped else abs(rng.normal(0, 0.02)) + 0.003
            layers.add(hair, [plane, nape], min(thick, 0.07), folds=0.006)
        if rng.random() < 0.2:
            low = (0.0, -1.0, 0.0, float(self._at["Nose"][1] - u(0.012, 0.04)))
            front = (0.0, u(0.0, 0.4), 1.0, float(-ears[2] - u(0.1, 0.4) * nose - 0.1))
            layers.add(
                hair, [low, front, (0.0, 1.0, 0.0, float(-self._at["Neck"][1] - 0.02))], u(0.001, 0.012)
            )
        return hair, long, bald

    def clothed(self, outfit: Outfit, shaped: Float32[Array32, "v 3"]) -> Float32[Array32, "v 3"]:
        """A rest-pose surface with what clothes and hair add to it along the normals."""
        thick, out = np.zeros(len(shaped), _F32), shaped.copy()
        _thicken(self._across, self._creases, outfit.regions, outfit.swell, thick)
        _grow(self._normals, thick, out)
        return out


@compiled
def inside(regions: NDArray[np.floating], layer: int, x: float, y: float, z: float) -> float:
    """How far (about metres) a place of the rest pose lies inside a layer's region; negative outside."""
    least = 1e9
    for row in range(4):
        depth = (
            regions[layer, row, 0] * abs(x) + regions[layer, row, 1] * y + regions[layer, row, 2] * z
            + regions[layer, row, 3]
        )  # fmt: skip
        if depth <= 0:
            return depth
        least = min(least, depth)
    return least


@compiled
def _crease(rest: Array32, table: Array32, out: NDArray[np.float64]) -> None:
    for v in range(rest.shape[0]):
        x, y, z = rest[v, 0], rest[v, 1], rest[v, 2]
        out[v] = noise_at(table, 1.3 * (x + 0.7 * z), 0.6 * y + 0.3 * z)


@compiled
def _plane(regions: Array32, layer: int, row: int) -> tuple[float, float, float, float]:
    r = regions[layer, row]
    return r[0], r[1], r[2], r[3]


@compiled
def _thicken(
    rest: Array32, creases: NDArray[np.float64], regions: Array32, swell: Array32, out: Array32
) -> None:  # fmt: skip
    """Thickness at each vertex. Layers from the skin outwards, over all vertices at once: no branch to guess wrong.

    rest: (3, v).
    """
    for layer in range(regions.shape[0] - 1, -1, -1):
        (a0, a1, a2, a3), (b0, b1, b2, b3) = _plane(regions, layer, 0), _plane(regions, layer, 1)
        (c0, c1, c2, c3), (d0, d1, d2, d3) = _plane(regions, layer, 2), _plane(regions, layer, 3)
        thick, more, below, folds = (
            swell[layer, 0],
            swell[layer, 1],
            swell[layer, 2],
            max(swell[layer, 3], 0.0),
        )
        for v in range(rest.shape[1]):
            x, y, z = abs(rest[0, v]), rest[1, v], rest[2, v]
            depth = min(
                min(a0 * x + a1 * y + a2 * z + a3, b0 * x + b1 * y + b2 * z + b3),
                min(c0 * x + c1 * y + c2 * z + c3, d0 * x + d1 * y + d2 * z + d3),
            )
            full = thick + more * max(below - y, 0.0) + folds * creases[v]
            here = np.float32(max(full, 0.0) * min(1.0, 0.3 + depth / 0.02))
            out[v] = here if depth > 0 else out[v]


@compiled
def _grow(normals: Array32, thick: Array32, out: Array32) -> None:
    for v in range(out.shape[0]):
        for k in range(3):
            out[v, k] += normals[v, k] * thick[v]
