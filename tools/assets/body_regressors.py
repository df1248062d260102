"""Joint regressors of the free body: SMPL's 24 joints by non-negative least squares, then the joint sets."""

import numpy as np
from scipy.optimize import nnls
from scipy.spatial.transform import Rotation

from dpmesh.skeletons import COCO17, H36M17, JOINTS30, SMPL24, SMPL_PARENTS

_POSES, RIDGE = 40, 0.05
_RADIUS = {
    "L_Hip": 0.17,
    "L_Knee": 0.11,
    "L_Thorax": 0.16,
    "L_Shoulder": 0.13,
    "L_Elbow": 0.1,
} | dict.fromkeys(("Pelvis", "Torso", "Spine", "Chest", "Neck", "Head"), 0.2)
"""Metres around a joint in which its vertices are looked for. Spine and hip lie deep: they need it wide."""


def pose(
    vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, turns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Linear blend skinning of one body: turns 24×3×3 relative to the parent; posed vertices and joints."""
    whole, place = [turns[0]], [joints[0]]
    for joint, parent in enumerate(SMPL_PARENTS[1:], 1):
        place.append(place[parent] + whole[parent] @ (joints[joint] - joints[parent]))
        whole.append(whole[parent] @ turns[joint])
    turned, placed = np.array(whole), np.array(place)
    offset = placed - np.einsum("jab,jb->ja", turned, joints)
    return np.einsum("vj,jab,vb->va", weights, turned, vertices, optimize=True) + weights @ offset, placed


def joint_regressor(
    samples: np.ndarray, joints: np.ndarray, weights: np.ndarray, counterpart: np.ndarray
) -> np.ndarray:
    """24×V, rows non-negative with sum 1, exactly symmetric.

    samples N×V×3 and joints N×24×3 in T-pose. Random poses of the mean body are fitted together with the shapes,
    so that a regressed joint stays with the joint of the chain when the limb bends. The ridge spreads the rows
    around the limb.
    """
    rng = np.random.default_rng(7)
    template, rest = samples.mean(0), joints.mean(0)
    shapes = np.arange(0, len(samples), 4)
    posed = [
        pose(template, rest, weights, Rotation.from_rotvec(rng.normal(0, 0.35, (24, 3))).as_matrix())
        for _ in range(_POSES)
    ]
    points = np.concatenate([samples[shapes], np.array([p[0] for p in posed])])
    targets = np.concatenate([joints[shapes], np.array([p[1] for p in posed])])
    rows = np.zeros((24, len(template)))
    flip, errors = np.array(SMPL24.flip), []
    for joint, name in enumerate(SMPL24.joints):
        if name.startswith("R_"):
            continue
        centred = flip[joint] == joint
        distance = np.linalg.norm(template - rest[joint], axis=1)
        radius = _RADIUS.get(name, 0.09)
        near = np.flatnonzero((distance < radius) & (template[:, 0] >= 0))
        near = near[:: max(1, len(near) // 240)]
        basis = (points[:, near] + points[:, counterpart[near]]) / 2 if centred else points[:, near]
        basis = basis - targets[:, joint, None]  # affine: only weights of sum 1 count
        system = np.concatenate([
            basis.transpose(0, 2, 1).reshape(-1, len(near)),
            np.full((1, len(near)), 30.0), RIDGE * np.eye(len(near)),
        ])  # fmt: skip
        right = np.zeros(len(system))
        right[-len(near) - 1] = 30.0
        solution, _ = nnls(system, right, maxiter=20 * len(near))
        solution /= solution.sum()
        error = np.linalg.norm(np.einsum("nvk,v->nk", basis, solution), axis=1) * 1000
        errors.append(error)
        flat, bent = error[: len(shapes)].mean(), error[len(shapes) :].mean()
        used = f"{(solution > 0).sum()} of {len(near)} vertices"
        print(f"{name:11s} {used:20s} T-pose {flat:5.1f} mm, posed {bent:5.1f} mm")
        share = solution / 2 if centred else solution
        np.add.at(rows[joint], near, share)
        np.add.at(rows[flip[joint]], counterpart[near], share)
    shaped = np.concatenate([e[: len(shapes)] for e in errors])
    print(f"residual over shapes: mean {shaped.mean():.1f} mm, max {shaped.max():.1f} mm")
    return rows / rows.sum(1, keepdims=True)


def regressors(joints: np.ndarray, template: np.ndarray, counterpart: np.ndarray) -> dict[str, np.ndarray]:
    """joints30, h36m17 and coco17 (rows K×V) from the 24 rows and landmarks of the template."""
    rest = joints @ template
    index = SMPL24.index

    def hot(vertex: int) -> np.ndarray:
        return np.eye(1, len(template), vertex)[0]

    middle = template[:, 0] == 0
    head = template[:, 1] > rest[index("Head"), 1]
    named = dict(zip(SMPL24.joints, joints, strict=True))
    nose = np.flatnonzero(middle & head)[template[middle & head, 2].argmax()]
    named["Nose"] = hot(nose)
    top = np.flatnonzero(middle)[template[middle, 1].argmax()]
    named["Head_top"] = hot(top)
    # The eye's fan centre is the foremost point between nose and brow, 3 cm from the middle.
    for name, guess in (("Eye", _eye(template, nose)), ("Ear", _ear(template, head))):
        named[f"L_{name}"], named[f"R_{name}"] = hot(guess), hot(int(counterpart[guess]))

    h36m = dict(named)
    # Human3.6M's root lies between the hips, its "Torso" half-way up the back.
    h36m["Pelvis"] = (named["L_Hip"] + named["R_Hip"]) / 2
    h36m["Torso"] = (named["Spine"] + named["Chest"]) / 2
    coco = dict(named)
    for side in "LR":
        # Annotators click the middle of the surface, a little above the centre of hip and shoulder.
        out = 1.0 if side == "L" else -1.0
        for name, radius, shift in (
            ("Hip", 0.14, (0.02 * out, 0.035, 0)),
            ("Shoulder", 0.09, (-0.02 * out, 0.015, 0)),
        ):
            coco[f"{side}_{name}"] = _surface_mean(
                template, rest[index(f"{side}_{name}")] + shift, radius, side
            )
    rows = {"joints30": (JOINTS30, named), "h36m17": (H36M17, h36m), "coco17": (COCO17, coco)}
    return {
        key: np.stack([table[name] for name in skeleton.joints]) for key, (skeleton, table) in rows.items()
    }


def _eye(template: np.ndarray, nose: int) -> int:
    target = template[nose] + [0.031, 0.045, -0.02]
    return int(np.linalg.norm(template - target, axis=1).argmin())


def _ear(template: np.ndarray, head: np.ndarray) -> int:
    left = np.flatnonzero(head & (template[:, 0] > 0))
    ear = left[template[left, 0] > 0.9 * template[left, 0].max()]
    return int(ear[np.linalg.norm(template[ear] - template[ear].mean(0), axis=1).argmin()])


def _surface_mean(template: np.ndarray, centre: np.ndarray, radius: float, side: str) -> np.ndarray:
    own = template[:, 0] > 0 if side == "L" else template[:, 0] < 0
    weight = np.where(own, np.exp(-((np.linalg.norm(template - centre, axis=1) / radius) ** 4)), 0)
    return weight / weight.sum()
