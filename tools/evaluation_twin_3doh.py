"""3DOH in miniature: the download's annots.json and JOTR's file."""

import json
from pathlib import Path

import numpy as np
from evaluation_twin_people import K, World, keypoints, picture, project
from scipy.spatial.transform import Rotation

from dpmesh.skeletons import COCO17


def write_3doh(root: Path, world: World, count: int = 3) -> dict[str, np.ndarray]:
    """Both layouts of the same people, neutral. The official one stores the world's root and misleading trans, scale.
    Returns name -> vertices, camera frame."""
    rng, jotr, official, truths = world.rng, {}, {}, {}
    faces = world.bodies["neutral"].faces.numpy()
    for i in range(count):
        R, t = Rotation.from_euler("xyz", rng.normal(0, 0.7, 3)).as_matrix(), rng.normal(0, 1, 3)
        m = world.moment("neutral", rng.normal(0, 1, 10), np.array([0.1 * i, 0, 3.5]), R, t)
        vertices, joints30 = m.vertices @ R.T + t, m.joints30 @ R.T + t
        pixels = project(vertices)
        box = np.stack([pixels.min(0), pixels.max(0)])
        pose = m.pose.copy()
        pose[:3] = (Rotation.from_matrix(R) * Rotation.from_rotvec(pose[:3])).as_rotvec()
        rest = world.pose("neutral", pose, m.betas)[0]
        coco = keypoints(joints30, COCO17, rng)
        if i == 1:
            coco[:] = 0  # a detector that saw nothing
        name = f"{i:05d}"
        truths[name] = vertices
        jotr[f"{name}.jpg"] = {
            "pose": pose.tolist(), "shape": m.betas.tolist(), "trans": (vertices - rest).mean(0).tolist(),
            "scale": [1.0], "bbox": box.reshape(-1).tolist(), "hrnet_results": coco.tolist(),
        }  # fmt: skip
        official[name] = {
            "img_path": f"/images/{name}.jpg", "intri": K.tolist(),
            "extri": np.block([[R, t[:, None]], [0, 0, 0, 1]]).tolist(), "bbox": box.tolist(),
            "betas": [m.betas.tolist()], "pose": [m.pose.tolist()], "trans": [(7 * m.trans).tolist()],
            "scale": [7.0], "smpl_joints_2d": np.zeros((24, 2)).tolist(), "smpl_joints_3d": (7 * m.joints24).tolist(),
            "lsp_joints_2d": np.zeros((14, 2)).tolist(), "lsp_joints_3d": np.zeros((14, 3)).tolist(),
        }  # fmt: skip
        for folder in ("OH3D/images", "3DOH50K/testset/images"):
            picture(root / folder / f"{name}.jpg", [vertices], faces, np.random.default_rng(i))
    (root / "OH3D" / "3doh_test_annots_scale_1.json").write_text(json.dumps(jotr))
    (root / "3DOH50K" / "testset" / "annots.json").write_text(json.dumps(official))
    return truths
