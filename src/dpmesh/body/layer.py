"""The SMPL-format body layer: shape, joints, pose correctives, kinematic chain, linear blend skinning.

M. Loper et al., SMPL: A Skinned Multi-Person Linear Model, SIGGRAPH Asia 2015, eqs. 2-10.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor, nn

from dpmesh.body.files import BETAS, REGRESSORS, BodyArrays
from dpmesh.errors import InputError


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]


@dataclass(frozen=True)
class BodyOutput:
    """A posed body, metres, in the frame that `rotations[:, 0]` and `transl` lead to."""

    vertices: Float[Tensor, "b v 3"]
    joints: Float[Tensor, "b 24 3"]  # of the kinematic chain
    joints30: Float[Tensor, "b 30 3"]  # regressor × posed vertices: the joints of the data sets


class BodyModel(nn.Module):
    """Poses a body. No parameters; buffers are not saved, so weights never carry a (licensed) body."""

    faces: Int64[Tensor, "f 3"]
    _template: Float[Tensor, "v 3"]
    _shapedirs: Float[Tensor, "v3 10"]
    _posedirs: Float[Tensor, "207 v3"]
    _weights: Float[Tensor, "v 24"]
    _joint_template: Float[Tensor, "24 3"]
    _joint_shapedirs: Float[Tensor, "72 10"]
    _touched: Int64[Tensor, " s"]

    def __init__(self, arrays: BodyArrays) -> None:
        super().__init__()
        self.parents = arrays.parents
        self.vertex_count = len(arrays.v_template)
        self.regressor_names = tuple(name for name in REGRESSORS if name in arrays.regressors)

        def keep(name: str, tensor: Tensor) -> None:
            self.register_buffer(name, tensor.contiguous(), persistent=False)

        template, shapedirs = _tensor(arrays.v_template), _tensor(arrays.shapedirs)
        regressor = _tensor(arrays.J_regressor)
        keep("faces", _tensor(arrays.faces))
        keep("_template", template)
        keep("_shapedirs", shapedirs.reshape(-1, BETAS))
        keep("_posedirs", _tensor(arrays.posedirs).reshape(-1, arrays.posedirs.shape[-1]).T)
        keep("_weights", _tensor(arrays.weights))
        # The joints are linear in beta, so they need no vertices: J (T + S beta) = J T + (J S) beta.
        keep("_joint_template", (regressor.double() @ template.double()).float())
        keep(
            "_joint_shapedirs",
            torch.einsum("jv,vck->jck", regressor.double(), shapedirs.double()).reshape(-1, BETAS).float(),
        )
        for name in self.regressor_names:
            keep(f"_regressor_{name}", _tensor(arrays.regressors[name]))

        rows = _tensor(arrays.regressors["joints30"]) if "joints30" in self.regressor_names else None
        touched = (
            template.new_zeros(0, dtype=torch.int64) if rows is None else rows.abs().sum(0).nonzero()[:, 0]
        )
        flat = (touched[:, None] * 3 + torch.arange(3, device=touched.device)).reshape(-1)
        keep("_touched", touched)
        keep("_touched_shapedirs", self._shapedirs[flat])
        keep("_touched_posedirs", self._posedirs[:, flat])
        if rows is not None:
            keep("_touched_rows", rows[:, touched])

    def forward(
        self,
        betas: Float[Tensor, "b 10"],
        rotations: Float[Tensor, "b 24 3 3"],
        transl: Float[Tensor, "b 3"] | None = None,
    ) -> BodyOutput:
        """betas in standard deviations; rotations relative to the parent, [:, 0] global; transl in metres.

        transl is added to vertices and joints alike; without it the rest pose's frame stays (the root
        turns about the pelvis joint, as in SMPL). Raises InputError for a body without a 30-joint regressor.
        """
        transforms, joints = self.chain(betas, rotations)
        vertices = self._skin(
            transforms, betas, rotations, self._template, self._shapedirs, self._posedirs, self._weights
        )
        joints30 = self.regress(vertices, "joints30")
        if transl is not None:  # last, because rows sum to 1 only up to rounding
            shift = transl[:, None]
            vertices, joints, joints30 = vertices + shift, joints + shift, joints30 + shift
        return BodyOutput(vertices, joints, joints30)

    @property
    def skinning_weights(self) -> Float[Tensor, "v 24"]:
        """Of each vertex to each joint of the kinematic chain."""
        return self._weights

    def bind_pose(
        self, betas: Float[Tensor, "b 10"], rotations: Float[Tensor, "b 24 3 3"]
    ) -> tuple[Float[Tensor, "b v 3"], Float[Tensor, "b 24 3"]]:
        """Vertices and joints before skinning, metres, rest pose: the mesh has the shape and this pose's correctives.

        rotations as in forward. Linear blend skinning of these gives forward's vertices.
        """
        vertices = self._shaped(betas, rotations, self._template, self._shapedirs, self._posedirs)
        return vertices, self.rest_joints(betas)

    def joints30_only(
        self,
        betas: Float[Tensor, "b 10"],
        rotations: Float[Tensor, "b 24 3 3"],
        transl: Float[Tensor, "b 3"] | None = None,
    ) -> Float[Tensor, "b 30 3"]:
        """`forward(...).joints30` from only the vertices that the regressor touches."""
        self._rows("joints30")
        transforms, _ = self.chain(betas, rotations)
        at = self._touched
        posed = self._skin(
            transforms, betas, rotations, self._template[at], self.get_buffer("_touched_shapedirs"),
            self.get_buffer("_touched_posedirs"), self._weights[at],
        )  # fmt: skip
        joints30 = self.get_buffer("_touched_rows") @ posed
        return joints30 if transl is None else joints30 + transl[:, None]

    def regress(self, vertices: Float[Tensor, "b v 3"], name: str) -> Float[Tensor, "b k 3"]:
        """Joints "joints30", "h36m17" or "coco17" (skeletons.py has their order) of posed vertices."""
        return self._rows(name) @ vertices

    def _rows(self, name: str) -> Tensor:
        if name not in self.regressor_names:
            raise InputError(
                f"this body has no regressor {name!r}; it has: {', '.join(self.regressor_names) or 'none'}",
                fix="Give load_body the regressor files, or take free_body().",
            )
        return self.get_buffer(f"_regressor_{name}")

    def chain(
        self, betas: Float[Tensor, "b 10"], rotations: Float[Tensor, "b 24 3 3"]
    ) -> tuple[Float[Tensor, "b 24 3 4"], Float[Tensor, "b 24 3"]]:
        """Rest-to-posed transform of every joint, and the posed joints; arguments as in forward, without transl."""
        rest = self.rest_joints(betas)
        turn, place = [rotations[:, 0]], [rest[:, 0]]
        for joint, parent in enumerate(self.parents[1:], start=1):
            bone = (rest[:, joint] - rest[:, parent])[..., None]
            place.append(place[parent] + (turn[parent] @ bone)[..., 0])
            turn.append(turn[parent] @ rotations[:, joint])
        turns, places = torch.stack(turn, 1), torch.stack(place, 1)
        # A vertex at p goes to R (p - rest) + place.
        offset = places[..., None] - turns @ rest[..., None]
        return torch.cat([turns, offset], -1), places

    def rest_joints(self, betas: Float[Tensor, "b 10"]) -> Float[Tensor, "b 24 3"]:
        """The joints of the rest pose, metres."""
        shift = (betas @ self._joint_shapedirs.T).reshape(-1, len(self.parents), 3)
        return self._joint_template + shift

    @classmethod
    def _skin(
        cls,
        transforms: Float[Tensor, "b 24 3 4"],
        betas: Float[Tensor, "b 10"],
        rotations: Float[Tensor, "b 24 3 3"],
        template: Float[Tensor, "n 3"],
        shapedirs: Float[Tensor, "n3 10"],
        posedirs: Float[Tensor, "207 n3"],
        weights: Float[Tensor, "n 24"],
    ) -> Float[Tensor, "b n 3"]:
        shaped = cls._shaped(betas, rotations, template, shapedirs, posedirs)
        blended = (weights @ transforms.flatten(2)).reshape(-1, len(weights), 3, 4)
        return torch.einsum("bnij,bnj->bni", blended[..., :3], shaped) + blended[..., 3]

    @staticmethod
    def _shaped(
        betas: Float[Tensor, "b 10"],
        rotations: Float[Tensor, "b 24 3 3"],
        template: Float[Tensor, "n 3"],
        shapedirs: Float[Tensor, "n3 10"],
        posedirs: Float[Tensor, "207 n3"],
    ) -> Float[Tensor, "b n 3"]:
        bend = rotations[:, 1:] - torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        offsets = betas @ shapedirs.T + bend.flatten(1) @ posedirs  # (b, n·3)
        return template + offsets.reshape(-1, len(template), 3)
