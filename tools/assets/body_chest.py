"""A neutral chest for the free body: its relief, over all people, is reduced to a third.

    python -m tools.assets.body_chest POPULATION.npz FREE_BODY.npz POPULATION_CHEST.npz

POPULATION.npz is what build_body.py writes. FREE_BODY.npz is the body that the package ships, POPULATION_CHEST.npz has
the rows that `population_body` puts back for synthetic people.

The mean of men and women has a woman's chest, and so has every body whose shape is not known. The front of the
chest is compared with the smoothest surface that continues its surroundings (biharmonic: Botsch and Kobbelt, "An
intuitive framework for real-time freeform modeling", SIGGRAPH 2004). The difference is the relief. The template's and
each shape direction's are scaled by RELIEF, so that men's chests do not become hollow.

No joint in rest pose moves: the shoulders and the back give way by a few smooth millimetres where a joint is regressed
from the chest.
"""

import sys
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from dpmesh.body.files import BodyArrays, load_body, save_body
from dpmesh.skeletons import SMPL24

RELIEF = 0.35
_HALF_WIDTH, _HALF_HEIGHT = 0.15, 0.11
"""Metres, of the ellipse around the middle of the chest."""
_CHEST_STIFFNESS = 1e6
"""Of the chest against the rest of the torso where joints are kept in place, 1/m⁴."""
_TORSO = ("Torso", "Spine", "Chest", "Neck", "L_Thorax", "R_Thorax")

_Array = NDArray[np.float64]


def neutral_chest(body: BodyArrays) -> BodyArrays:
    """The body with RELIEF of its chest's relief; faces, weights, regressors and correctives stay."""
    template = body.v_template.astype(np.float64)
    count = len(template)
    fields = np.concatenate([template, body.shapedirs.astype(np.float64).reshape(count, -1)], 1)
    bending = _bending(template, body.faces)
    chest = _chest(template, body.faces)
    new = fields.copy()
    inside, around = np.flatnonzero(chest), np.flatnonzero(~chest)
    smooth = splu(bending[inside][:, inside].tocsc()).solve(-(bending[inside][:, around] @ fields[around]))
    new[inside] = smooth + RELIEF * (fields[inside] - smooth)
    new += _keep_joints(body, bending, chest, fields - new)
    # Symmetric to the last bit, as everything of the body.
    image = cKDTree(template).query(template * [-1, 1, 1])[1]
    sign = np.concatenate([[-1, 1, 1], np.repeat([-1, 1, 1], body.shapedirs.shape[2])])
    new = (new + new[image] * sign) / 2
    return replace(
        body,
        v_template=new[:, :3].astype(np.float32),
        shapedirs=new[:, 3:].reshape(body.shapedirs.shape).astype(np.float32),
    )


def _keep_joints(
    body: BodyArrays, bending: sparse.csr_array, chest: NDArray[np.bool_], back: _Array
) -> _Array:
    """The smoothest change of the torso by which every regressed point moves as `back` would move it."""
    torso = np.flatnonzero(body.weights[:, [SMPL24.index(name) for name in _TORSO]].sum(1) > 0.5)
    rows = np.concatenate([body.J_regressor, *body.regressors.values()]).astype(np.float64)
    rows = rows[(rows[:, torso] != 0).any(1)]
    wanted, pulls = rows @ back, rows[:, torso]
    system = (bending + sparse.diags_array(_CHEST_STIFFNESS * chest))[torso][:, torso]
    answers = splu(system.tocsc()).solve(np.ascontiguousarray(pulls.T))
    change = np.zeros_like(back)
    change[torso] = answers @ np.linalg.lstsq(pulls @ answers, wanted, rcond=1e-10)[0]
    return change


def _chest(template: _Array, faces: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Vertices of the front within the ellipse around the foremost height of the chest."""
    front = (np.abs(template[:, 0]) < _HALF_WIDTH) & (np.abs(template[:, 1] - 0.31) < 0.19)
    height = template[front][template[front, 2].argmax(), 1]
    normals = np.zeros_like(template)
    corners = template[faces]
    for corner in range(3):
        np.add.at(
            normals, faces[:, corner], np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        )
    facing = normals[:, 2] > -0.1 * np.linalg.norm(normals, axis=1)
    ellipse = (template[:, 0] / _HALF_WIDTH) ** 2 + ((template[:, 1] - height) / _HALF_HEIGHT) ** 2
    return facing & (template[:, 2] > 0) & (ellipse < 1)


def _bending(template: _Array, faces: NDArray[np.int64]) -> sparse.csr_array:
    """V×V bending energy: cotangent Laplacian, inverse areas, cotangent Laplacian."""
    count, corners = len(template), template[faces]
    rows, columns, values, area = [], [], [], np.zeros(count)
    for corner in range(3):
        a, b, c = (faces[:, (corner + k) % 3] for k in range(3))
        u, w = (corners[:, (corner + k) % 3] - corners[:, corner] for k in (1, 2))
        double = np.linalg.norm(np.cross(u, w), axis=1)
        half_cotangent = 0.5 * (u * w).sum(1) / double
        rows += [b, c]
        columns += [c, b]
        values += [half_cotangent, half_cotangent]
        np.add.at(area, a, double / 6)
    near = sparse.csr_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (count, count)
    )
    laplacian = sparse.diags_array(near.sum(1)) - near
    return sparse.csr_array(laplacian @ sparse.diags_array(1 / area) @ laplacian)


def main(population: str, free_body: str, chest: str) -> None:
    before = load_body(population)
    save_body(free_body, neutral_chest(before), compact=True)
    after = load_body(free_body)
    differs = (before.v_template != after.v_template).any(1) | (before.shapedirs != after.shapedirs).any(
        (1, 2)
    )
    vertices = np.flatnonzero(differs)
    np.savez_compressed(
        chest,
        vertices=vertices.astype(np.int32),
        v_template=before.v_template[vertices],
        shapedirs=before.shapedirs[vertices].astype(np.float16),
    )
    print(f"{len(vertices)} vertices differ")


if __name__ == "__main__":
    main(*sys.argv[1:])
