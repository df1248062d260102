"""Synthetic people: images with everything known about them, each a pure function of (seed, index)."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int32, UInt8
from numpy.typing import NDArray

from dpmesh.body.files import BodyArrays
from dpmesh.data.sample import SCALARS, Batch, Sample, stack
from dpmesh.data.synthetic.accessories import Accessories, place_pieces
from dpmesh.data.synthetic.backgrounds import Backgrounds
from dpmesh.data.synthetic.bodies import Bodies, PoseSource
from dpmesh.data.synthetic.body import FastBody
from dpmesh.data.synthetic.camera_effects import photograph
from dpmesh.data.synthetic.clothes import Wardrobe
from dpmesh.data.synthetic.environment import draw_behind, draw_surroundings
from dpmesh.data.synthetic.keypoints import describe, keypoints_only
from dpmesh.data.synthetic.lighting import Light
from dpmesh.data.synthetic.looks import Dressed, Looks, bare
from dpmesh.data.synthetic.materials import pick
from dpmesh.data.synthetic.occluders import flat_shape, furniture, limb, put_before
from dpmesh.data.synthetic.photo_textures import NO_TEXTURES
from dpmesh.data.synthetic.primitives import Mesh
from dpmesh.data.synthetic.scene import CENTRE, SIZE, Scenes, draw_scenes, project
from dpmesh.data.synthetic.shading import shade
from dpmesh.data.synthetic.textures import backdrop, paste, texture
from dpmesh.data.synthetic.zbuffer import LOOSE, MOST_HIDDEN, OTHER, PERSON, THING, Canvas
from dpmesh.render.shading import vertex_normals
from dpmesh.skeletons import JOINTS30

STEP = 8
"""Pixels from one cell of record.Sample's parts and surface to the next."""

_OBJECTS = (0.4, 0.32, 0.18, 0.1)  # probability of 0, 1, 2, 3 objects before the person
_WHAT = (0.62, 0.2, 0.18)  # furniture, another person's limb, a flat shape
_AROUND = 3  # pieces of furniture about the place, at most
_FLAT = 0.12  # images with an abstract background instead of a place
_PHOTOGRAPHED = 0.5  # images with a photograph behind, where there are any
_FACE = ("Nose", "Eye", "Ear")
_TRUNK = ("Pelvis", "Hip", "Torso", "Spine", "Chest", "Neck", "Thorax", "Shoulder")
DEPTH_GAP = np.array(
    [0.06 if j.endswith(_FACE) else 0.28 if j.endswith(_TRUNK) else 0.13 for j in JOINTS30.joints]
)
"""Metres that a joint may lie behind the person's own surface and still be visible: its depth in the body."""
LOOSE_GAP = np.where([j.endswith(_FACE) for j in JOINTS30.joints], 0.02, DEPTH_GAP)
"""The same for what hangs on the person: hair and hats hide a face that they lie before, a skirt what it hangs away
from; a joint right under cloth is as visible as under trousers."""
_LOW = [
    JOINTS30.index(name) for name in ("Pelvis", "L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Wrist")
]
_BALLS = np.array([0.14 if j.endswith(_TRUNK) else 0.09 for j in JOINTS30.joints[:24]], np.float32)
_F32 = np.float32


class SyntheticPeople:
    """`sample(index)` draws one sample, always the same for the same seed, bank and body."""

    def __init__(
        self,
        seed: int,
        bank: PoseSource,
        body: BodyArrays,
        looks: Path | None = None,
        share: float = 0.5,
        backgrounds: Path | None = None,
        detector_noise: float = 0.0,
    ) -> None:
        """looks: a file for photographic people (looks.Looks), who are this share of all. backgrounds: a folder of
        photographs without people, behind _PHOTOGRAPHED of the people. None for none. detector_noise: share of the
        people whose keypoints err as the shipped detector's (data/detector_noise.py).

        Raises InputError where one can't be used.
        """
        self.seed, self._detector_noise = seed, detector_noise
        self._bank = bank
        self._body = FastBody(body)
        self._wardrobe = Wardrobe(self._body)
        self._accessories = Accessories(self._body)
        self._looks, self._share = Looks(looks, self._body) if looks else None, share
        self._backgrounds = Backgrounds(backgrounds) if backgrounds else None
        part = body.weights.argmax(1).astype(np.uint8)
        self._part = part[self._body.faces[:, 0]]  # the joint that moves each face most

    def sample(self, index: int) -> Sample:
        """Sample number `index` (>= 0)."""
        rng = np.random.default_rng([self.seed, index])
        scenes = draw_scenes(rng, 1, self._bank, self._body)
        crop, canvas, depth, face, part = self._render(rng, scenes)
        joints = scenes.people.joints[0] + scenes.transl[0]
        hidden = ~visible_joints(
            joints, project(joints[None], scenes.focal)[0], canvas.raster.depth, canvas.owner
        )
        batch = describe(rng, scenes, hidden[None], self._detector_noise)
        rows: dict[str, Any] = {n: float(r[0]) if n in SCALARS else r[0] for n, r in batch.items()}
        parts, surface = _surface(depth, face, part, float(joints[0, 2]))
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

    def batch(self, start: int, n: int) -> Batch:
        """Samples start to start + n - 1, stacked (record.stack)."""
        return stack([self.sample(index) for index in range(start, start + n)])

    def keypoints_only(self, rng: np.random.Generator, n: int) -> Batch:
        """n samples without images, as of keypoints.keypoints_only: thousands per second."""
        return keypoints_only(rng, n, self._bank, self._body, self._detector_noise)

    def _render(
        self, rng: np.random.Generator, scenes: Scenes
    ) -> tuple[NDArray[np.uint8], Canvas, NDArray[np.float32], NDArray[np.int32], NDArray[np.uint8]]:
        """The image, what was drawn on, depth and faces of the people without the objects, and the joint that moves
        each of the person's faces."""
        focal, view = float(scenes.focal[0]), scenes.view[0]
        most = MOST_HIDDEN[1] if rng.random() < MOST_HIDDEN[2] else MOST_HIDDEN[0]
        canvas = Canvas(np.array([[focal, 0, CENTRE], [0, focal, CENTRE], [0, 0, 1]]), SIZE, most)
        person, pieces = self._dressed(rng, scenes.people, 0, scenes.transl[0])
        canvas.add(person.mesh, PERSON, closed=person.closed)
        loose = [(piece, LOOSE) for piece in pieces]
        for k in range(len(scenes.other_of)):
            if canvas.beyond(scenes.others.joints[k] + scenes.other_transl[k], 0.3):
                continue
            other, pieces = self._dressed(rng, scenes.others, k, scenes.other_transl[k])
            if canvas.add(other.mesh, OTHER, closed=other.closed):
                loose += [(piece, OTHER) for piece in pieces]
        depth, face = canvas.visible_faces()
        for piece, kind in loose:
            canvas.add(piece, kind)

        joints = scenes.people.joints[0] + scenes.transl[0]
        positions = np.concatenate(
            [joints[:24], (scenes.others.joints + scenes.other_transl[:, None])[:, :24].reshape(-1, 3)]
        )
        ground, light = float(scenes.ground[0]), Light(rng, view)
        self._furnish(rng, canvas, view, ground, float(joints[0, 2]))
        shapes = self._objects(rng, canvas, scenes, joints)
        image = np.empty((SIZE, SIZE, 3), _F32)
        if self._backgrounds and rng.random() < _PHOTOGRAPHED:
            image[:] = self._backgrounds.draw(rng, SIZE)
        elif rng.random() < _FLAT:
            image[:] = backdrop(rng, SIZE)
        else:
            balls = np.concatenate(
                [positions[:72] @ view, np.resize(_BALLS, len(positions[:72]))[:, None]], 1
            )
            around = draw_surroundings(rng, light, ground, positions @ view)
            draw_behind(image, around, light, view, focal, balls.astype(_F32), canvas.raster.face)
        textures = self._looks.textures if self._looks else NO_TEXTURES
        shade(image, canvas.raster, canvas.mesh(), light, focal, textures)
        for mask in shapes:
            paste(texture(rng, SIZE), mask, image)
        glare = rng.uniform(0, 0.6) if light.kind == "backlight" else 0.15 * (rng.random() < 0.07)
        return photograph(rng, image, scenes.frame[0], float(glare)), canvas, depth, face, person.part

    def _furnish(
        self, rng: np.random.Generator, canvas: Canvas, view: NDArray[np.float32], ground: float, depth: float
    ) -> None:
        """Furniture on the floor around and behind the person, who is `depth` metres away."""
        for _ in range(rng.integers(0, _AROUND + 1)):
            piece = furniture(rng)
            far = depth + rng.uniform(0.6, 4.0)
            across = rng.uniform(-0.6, 0.6) * far * SIZE / float(canvas.K[0, 0])
            place = np.array([across, 0, far]) @ view  # world
            place[1] = ground
            canvas.add(piece.moved(view, (view @ place).astype(_F32)), THING, most=0.1)

    def _objects(
        self, rng: np.random.Generator, canvas: Canvas, scenes: Scenes, joints: NDArray[np.float32]
    ) -> list[NDArray[np.bool_]]:
        """Objects in front of the person. Masks of the flat ones, which are still to be coloured."""
        shapes: list[NDArray[np.bool_]] = []
        focal = scenes.focal
        for _ in range(pick(rng, _OBJECTS)):
            kind = pick(rng, _WHAT)
            low = kind == 0 and rng.random() < 0.7  # furniture stands low
            target = joints[rng.choice(_LOW) if low else rng.integers(30)]
            if kind == 0:
                piece = put_before(rng, furniture(rng), scenes.view[0], target, float(scenes.ground[0]))
                canvas.add(piece, THING)
            elif kind == 1:
                canvas.add(limb(rng, target, float(focal[0]), SIZE), OTHER)
            else:
                x, y = project(target[None, None], focal[:1])[0, 0] + rng.normal(0, 12, 2)
                shapes.append(flat_shape(rng, SIZE, (float(x), float(y)), rng.uniform(20, 170)))
        return [mask for mask in shapes if canvas.cover(mask)]  # nearest of all: after the meshes

    def _dressed(
        self, rng: np.random.Generator, bodies: Bodies, k: int, transl: NDArray[np.float32]
    ) -> tuple[Dressed, list[Mesh]]:
        """Person k of bodies with what is worn on the skin; and the loose things, each a mesh."""
        outfit = self._wardrobe.dress(rng)
        betas, rotations = bodies.betas[k], bodies.rotations[k]
        shaped, moves = self._body.shaped(betas), self._body.transforms(betas[None], rotations[None])[0]
        look = None
        if self._looks and rng.random() < self._share:
            look = self._looks.choose(rng, outfit, woman=float(betas[1]) + 0.4 * rng.standard_normal() < 0)
        rest = shaped if look and look.clothed else self._wardrobe.clothed(outfit, shaped)
        if self._looks and look:
            dressed = self._looks.wear(look, outfit, rest, betas, rotations, moves, transl)
        else:
            vertices = self._body.pose(rest, rotations, moves, transl)
            mesh = Mesh(
                vertices, self._body.faces, vertex_normals(vertices, self._body.faces), self._body.template,
                np.zeros(len(self._body.faces), np.int32), np.array([0, len(outfit.paints)], np.int32),
                outfit.regions, outfit.paints,
            )  # fmt: skip
            dressed = Dressed(mesh, None, self._part, closed=True)
        if look and look.clothed:
            outfit = bare(outfit)
        pieces = self._accessories.pieces(rng, outfit, shaped, self._body.rest(betas[None])[0])
        placed = place_pieces(pieces, moves, transl)
        return dressed, placed if dressed.hair is None else [dressed.hair, *placed]


def _surface(
    depth: Float32[NDArray[np.float32], "s s"],
    face: Int32[NDArray[np.int32], "s s"],
    part: UInt8[NDArray[np.uint8], "f"],
    pelvis: float,
) -> tuple[UInt8[NDArray[np.uint8], "32 32"], Float32[NDArray[np.float32], "32 32"]]:
    """record.Sample's parts and surface, from the people without the objects. part: of the person's faces, which come
    first; pelvis: its depth, metres."""
    face, depth = face[::STEP, ::STEP], depth[::STEP, ::STEP]
    own = (face >= 0) & (face < len(part))
    parts = 1 + part[np.where(own, face, 0)]
    return np.where(own, parts, 0).astype(np.uint8), np.where(own, depth - pelvis, 0).astype(_F32)


def visible_joints(
    joints: Float32[NDArray[np.float32], "30 3"],
    pixels: Float32[NDArray[np.float32], "30 2"],
    depth: Float32[NDArray[np.float32], "s s"],
    owner: Int8[NDArray[np.int8], "s s"],
) -> Bool[NDArray[np.bool_], "30"]:
    """Which joints are not covered. Joints (metres, camera frame) outside the crop use the border pixel.

    Joints lie inside the body (the pelvis deeper than a wrist). So the person's own surface covers a joint only
    when it is more than DEPTH_GAP nearer, loose clothes and accessories when they are more than LOOSE_GAP nearer.
    Other people and things cover it when they are nearer at all.
    """
    x, y = (np.clip(np.round(pixels[:, k]).astype(np.int64), 0, SIZE - 1) for k in range(2))
    kind = owner[y, x]
    gap = np.where(kind == PERSON, DEPTH_GAP, np.where(kind == LOOSE, LOOSE_GAP, 0.0))
    return depth[y, x] >= joints[:, 2] - gap
