"""Synthetic people: pictures with everything known about them, each a pure function of (seed, index)."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int8, UInt8
from numpy.typing import NDArray

from dpmesh.body.files import BodyArrays
from dpmesh.data.record import SCALARS, Batch, Sample, stack
from dpmesh.data.synthetic.backdrop import backdrop, paste, spread, texture
from dpmesh.data.synthetic.body import FastBody
from dpmesh.data.synthetic.clothes import Wardrobe, vertex_normals
from dpmesh.data.synthetic.keypoints import describe, keypoints_only
from dpmesh.data.synthetic.occluders import Mesh, flat_shape, furniture
from dpmesh.data.synthetic.picture import Light, photograph, shade
from dpmesh.data.synthetic.scene import CENTRE, SIZE, Bodies, PoseSource, Scenes, draw_scenes, project
from dpmesh.render.rasterizer import Raster, rasterize
from dpmesh.skeletons import JOINTS30

PERSON, OTHER, THING = 1, 2, 3
"""Who owns a pixel; 0 is the background."""

STEP = 8
"""Pixels from one cell of record.Sample's parts and surface to the next."""

MOST_HIDDEN = 0.6  # an object that hides more of the person than this is left out
_SHAPES = (0.35, 0.3, 0.2, 0.15)  # probability of 0, 1, 2, 3 objects
_FACE = ("Nose", "Eye", "Ear")
_TRUNK = ("Pelvis", "Hip", "Torso", "Spine", "Chest", "Neck", "Thorax", "Shoulder")
DEPTH_GAP = np.array(
    [0.06 if j.endswith(_FACE) else 0.28 if j.endswith(_TRUNK) else 0.13 for j in JOINTS30.joints]
)
"""Metres that a joint may lie behind the person's own surface and still be seen: its depth in the body."""
_LOW = [
    JOINTS30.index(name) for name in ("Pelvis", "L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Wrist")
]
_F32 = np.float32


class SyntheticPeople:
    """`sample(index)` draws one sample, always the same for the same seed, bank and body."""

    def __init__(self, seed: int, bank: PoseSource, body: BodyArrays) -> None:
        self.seed = seed
        self._bank = bank
        self._body = FastBody(body)
        self._wardrobe = Wardrobe(self._body)
        self._part = body.weights.argmax(1).astype(np.uint8)  # the joint that moves each vertex most

    def sample(self, index: int) -> Sample:
        """Sample number `index` (>= 0)."""
        rng = np.random.default_rng([self.seed, index])
        scenes = draw_scenes(rng, 1, self._bank, self._body)
        crop, canvas, raster = self._render(rng, scenes)
        joints = scenes.people.joints[0] + scenes.transl[0]
        hidden = ~seen(joints, project(joints[None], scenes.focal)[0], canvas.depth, canvas.owner)
        batch = describe(rng, scenes, hidden[None])
        rows: dict[str, Any] = {n: float(r[0]) if n in SCALARS else r[0] for n, r in batch.items()}
        parts, surface = self._surface(raster, float(joints[0, 2]))
        record = f"synthetic/{self.seed}/{index}"
        return Sample(
            record_id=record,
            crop=crop,
            parts=parts,
            surface=surface,
            surface_valid=1.0,
            has_image=True,
            **rows,
        )

    def _surface(
        self, raster: Raster, pelvis: float
    ) -> tuple[UInt8[NDArray[np.uint8], "32 32"], Float32[NDArray[np.float32], "32 32"]]:
        """record.Sample's parts and surface, from the people without the objects. pelvis: its depth, metres."""
        face, depth = raster.face[::STEP, ::STEP], raster.depth[::STEP, ::STEP]
        own = (face >= 0) & (face < len(self._body.faces))
        parts = 1 + self._part[self._body.faces[np.where(own, face, 0), 0]]
        return np.where(own, parts, 0).astype(np.uint8), np.where(own, depth - pelvis, 0).astype(_F32)

    def batch(self, start: int, n: int) -> Batch:
        """Samples start to start + n - 1, stacked (record.stack)."""
        return stack([self.sample(index) for index in range(start, start + n)])

    def keypoints_only(self, rng: np.random.Generator, n: int) -> Batch:
        """n samples without pictures, as keypoints.keypoints_only gives them: thousands per second."""
        return keypoints_only(rng, n, self._bank, self._body)

    def _render(
        self, rng: np.random.Generator, scenes: Scenes
    ) -> tuple[NDArray[np.uint8], "_Canvas", Raster]:
        """The picture, what was drawn on, and the people without the objects."""
        focal = float(scenes.focal[0])
        K = np.array([[focal, 0, CENTRE], [0, focal, CENTRE], [0, 0, 1]])
        light = Light(rng)
        image = backdrop(rng, SIZE)
        people = [self._dressed(rng, scenes.people, scenes.transl[0])]
        if scenes.has_other[0]:
            people.append(self._dressed(rng, scenes.others, scenes.other_transl[0]))
        mesh = _join(people)
        raster = rasterize(mesh.vertices, mesh.faces, K, (SIZE, SIZE))
        shade(image, raster, mesh.faces, mesh.colour, mesh.normals, light)
        canvas = _Canvas(image, raster, len(people[0].faces))
        for _ in range(rng.choice(len(_SHAPES), p=_SHAPES)):
            solid = rng.random() < 0.5
            joint = (
                rng.choice(_LOW) if solid and rng.random() < 0.8 else rng.integers(30)
            )  # furniture stands low
            target = scenes.people.joints[0, joint] + scenes.transl[0]
            if solid:
                canvas.add_furniture(rng, furniture(rng, scenes.view[0], target), K, light)
            else:
                canvas.add_shape(rng, project(target[None, None], scenes.focal[:1])[0, 0])
        return photograph(rng, image, scenes.frame[0]), canvas, raster

    def _dressed(self, rng: np.random.Generator, bodies: Bodies, transl: NDArray[np.float32]) -> Mesh:
        look = self._wardrobe.dress(rng)
        vertices = self._body.posed(bodies.betas[0], bodies.rotations[0], look.thickness) + transl
        return Mesh(vertices, self._body.faces, look.colour, vertex_normals(vertices, self._body.faces))


class _Canvas:
    """A picture that objects are added to: colour, depth (metres, inf in the background), owner of each pixel."""

    def __init__(self, image: NDArray[np.float32], people: Raster, faces: int) -> None:
        """people: drawn already; the first `faces` triangles are the person's, the others another's."""
        self.image, self.depth = image, people.depth.copy()
        owner = np.where(people.face < 0, 0, np.where(people.face < faces, PERSON, OTHER))
        self.owner: NDArray[np.int8] = owner.astype(np.int8)
        self._whole = int((self.owner == PERSON).sum())

    def add_furniture(
        self, rng: np.random.Generator, mesh: Mesh, K: NDArray[np.float64], light: Light
    ) -> None:
        """Draw a mesh where it is the nearest, unless it hides too much of the person."""
        raster = rasterize(mesh.vertices, mesh.faces, K, (SIZE, SIZE))
        front = raster.depth < self.depth
        if self._too_much(front):
            return
        shown = Raster(raster.depth, np.where(front, raster.face, -1).astype(np.int32), raster.bary)
        shade(self.image, shown, mesh.faces, mesh.colour, mesh.normals, light)
        if rng.random() < 0.6:  # the grain of the material, as a factor
            grain = np.ascontiguousarray(texture(rng, SIZE)[..., 0])
            paste(self.image * spread(_F32(0.75) + _F32(0.5) * grain), front, self.image)
        self.depth[front], self.owner[front] = raster.depth[front], THING

    def add_shape(self, rng: np.random.Generator, at: NDArray[np.float32]) -> None:
        """Draw a flat textured shape before everything, near a pixel."""
        x, y = at + rng.normal(0, 12, 2)
        mask = flat_shape(rng, SIZE, (float(x), float(y)), rng.uniform(20, 170))
        if self._too_much(mask) or not mask.any():
            return
        paste(texture(rng, SIZE), mask, self.image)
        self.depth[mask], self.owner[mask] = max(float(self.depth.min()) - 0.1, 0.1), THING

    def _too_much(self, front: NDArray[np.bool_]) -> bool:
        left = int(((self.owner == PERSON) & ~front).sum())
        return left < (1 - MOST_HIDDEN) * self._whole


def seen(
    joints: Float32[NDArray[np.float32], "30 3"],
    pixels: Float32[NDArray[np.float32], "30 2"],
    depth: Float32[NDArray[np.float32], "s s"],
    owner: Int8[NDArray[np.int8], "s s"],
) -> Bool[NDArray[np.bool_], "30"]:
    """Which joints nothing covers. Joints (metres, camera frame) outside the crop take the border pixel.

    The person's own surface covers a joint when it lies more than DEPTH_GAP before it (joints are inside the
    body: the pelvis deeper than a wrist); anybody and anything else when it is nearer at all.
    """
    x, y = (np.clip(np.round(pixels[:, k]).astype(np.int64), 0, SIZE - 1) for k in range(2))
    gap = np.where(owner[y, x] == PERSON, DEPTH_GAP, 0.0)
    return depth[y, x] >= joints[:, 2] - gap


def _join(meshes: list[Mesh]) -> Mesh:
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]).astype(
            np.int32
        ),
        np.concatenate([mesh.colour for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
    )
