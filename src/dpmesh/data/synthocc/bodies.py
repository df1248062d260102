"""People: held-out poses, shapes, and clothes of garments and solid patterns; all in float64.

float64 makes the labels the same on every machine: what differs between machines is the order of sums, some 1e-15,
and everything is rounded to far coarser steps (DIGITS) before anything depends on it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dpmesh.body.files import population_body
from dpmesh.body.layer import BodyModel
from dpmesh.data.poses import PoseBank
from dpmesh.data.synthocc.draws import Draws
from dpmesh.data.synthocc.patterns import Array, Pattern, draw_pattern
from dpmesh.skeletons import SMPL24

DIGITS = {"pose": 4, "betas": 3, "metres": 4, "pixels": 2}
"""Decimals that labels are rounded to: 0.1 mrad, 0.001 standard deviations, 0.1 mm, 0.01 px."""
_MESH_DIGITS = 5  # what is drawn is rounded to 0.01 mm: no pixel at an edge depends on the last bit
_SKIN = np.array([[236, 188, 158], [205, 150, 112], [160, 106, 74], [105, 68, 48]]) / 255
_SEAMS = {"head": ("Head", "Neck"), "hands": ("L_Wrist", "R_Wrist", "L_Hand", "R_Hand"),
          "legs": ("L_Hip", "R_Hip", "L_Knee", "R_Knee", "Pelvis"), "feet": ("L_Ankle", "R_Ankle", "L_Toe", "R_Toe"),
          "sleeves": ("L_Elbow", "R_Elbow")}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Figure:
    """A posed person, at the origin of the rest pose. joints: 30-set; metres, camera frame but for transl.
    h36m, coco: joints by those regressors."""

    pose: Float[Array, "24 3"]
    betas: Float[Array, "10"]
    vertices: Float[Array, "v 3"]
    joints: Float[Array, "30 3"]
    coco: Float[Array, "17 3"]
    h36m: Float[Array, "17 3"]


@dataclass(frozen=True, eq=False)
class Outfit:
    """group: of each face; patterns: one a group, over the rest pose, metres."""

    group: Int[np.ndarray, "f"]
    patterns: tuple[Pattern, ...]


class People:
    """The free body in float64 and the test split of the pose bank."""

    def __init__(self) -> None:
        arrays = population_body()
        self.faces = np.ascontiguousarray(arrays.faces, np.int32)
        self.rest = arrays.v_template.astype(np.float64)
        self._part = arrays.weights.argmax(1)[self.faces[:, 0]]
        self._model = BodyModel(arrays).double()

    @cached_property
    def bank(self) -> NDArray[np.float32]:
        """Recorded poses of held-out subjects and actions, and their mirror images: (n, 24, 3)."""
        return PoseBank.load("test").both_sides

    def draw(self, draws: Draws, view: Float[Array, "3 3"]) -> Figure:
        """A person turned any way about the vertical, in a camera of that view (world, y up, to camera)."""
        pose = np.array(self.bank[draws.pick(len(self.bank))], np.float64)
        betas = np.clip(draws.normal(10), -2.5, 2.5).round(DIGITS["betas"])
        turn = Rotation.from_rotvec([0.0, draws.between(-np.pi, np.pi), 0.0]).as_matrix()
        pose[0] = Rotation.from_matrix(view @ turn @ Rotation.from_rotvec(pose[0]).as_matrix()).as_rotvec()
        return self.posed(pose.round(DIGITS["pose"]), betas)

    @torch.inference_mode()
    def posed(self, pose: Float[Array, "24 3"], betas: Float[Array, "10"]) -> Figure:
        rotations = torch.from_numpy(Rotation.from_rotvec(pose).as_matrix())[None]
        vertices = self._model(torch.from_numpy(betas)[None], rotations).vertices
        joints, coco, h36m = (
            self._model.regress(vertices, n)[0].numpy() for n in ("joints30", "coco17", "h36m17")
        )
        return Figure(pose, betas, vertices[0].numpy().round(_MESH_DIGITS), joints, coco, h36m)

    @torch.inference_mode()
    def moving(
        self, poses: Float[Array, "t 24 3"], betas: Float[Array, "10"]
    ) -> tuple[Float[Array, "t v 3"], Float[Array, "t 30 3"], Float[Array, "t 17 3"]]:
        """Vertices, the 30-set and COCO's joints of one person in several poses, as `posed` has them."""
        parts = []
        for some in np.array_split(poses, max(1, len(poses) // 15)):
            turns = Rotation.from_rotvec(some.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
            shape = torch.from_numpy(betas)[None].expand(len(some), 10)
            vertices = self._model(shape, torch.from_numpy(turns)).vertices
            joints = (self._model.regress(vertices, name).numpy() for name in ("joints30", "coco17"))
            parts.append((vertices.numpy().round(_MESH_DIGITS), *joints))
        vertices, joints30, coco = (np.concatenate(column) for column in zip(*parts, strict=True))
        return vertices, joints30, coco

    def dress(self, draws: Draws) -> Outfit:
        """Skin, hair or cap, top, trousers and shoes, each with a pattern of its own."""
        skin = _SKIN[draws.pick(len(_SKIN))] * draws.between(0.85, 1.1)
        group = np.ones(len(self.faces), np.int64)  # 0 skin, 1 top, 2 trousers, 3 shoes, 4 hair
        group[self._is("hands")] = 0
        group[self._is("head")] = 0
        group[self._is("legs")] = 2
        group[self._is("feet")] = 3
        if draws.chance(0.5):
            group[self._is("sleeves")] = 0
        if draws.chance(0.3):  # shorts
            group[self._is("legs") & (self._height < np.quantile(self._height[self._is("legs")], 0.4))] = 0
        crown = self._is("head") & (self._height > self._height.max() - draws.between(0.07, 0.16))
        face = self._middle[:, 2] > np.quantile(self._middle[self._is("head"), 2], 0.62)
        group[crown & ~(face & (self._height < self._height.max() - 0.06))] = 4
        hair = draws.colour(0.04, 0.5, 0.2)
        return Outfit(
            group,
            (
                _plain(skin), draw_pattern(draws, draws.between(0.05, 0.2)),
                draw_pattern(draws, draws.between(0.05, 0.25), 0.4), _plain(draws.colour()), _plain(hair),
            ),
        )  # fmt: skip

    def _is(self, garment: str) -> NDArray[np.bool_]:
        return np.isin(self._part, [SMPL24.index(name) for name in _SEAMS[garment]])

    @cached_property
    def _middle(self) -> Float[Array, "f 3"]:
        return self.rest[self.faces].mean(1)

    @cached_property
    def _height(self) -> Float[Array, "f"]:
        return self._middle[:, 1]


def _plain(colour: Float[Array, "3"]) -> Pattern:
    return lambda points: np.broadcast_to(np.clip(colour, 0, 1), (len(points), 3))
