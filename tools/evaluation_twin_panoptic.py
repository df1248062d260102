"""CMU-Panoptic in miniature: multiperson's pickle."""

import pickle
from pathlib import Path

import numpy as np
from evaluation_twin_people import HEIGHT, WIDTH, World, picture, project

from dpmesh.skeletons import H36M17

SPIN_ORDER = (
    "R_Ankle", "R_Knee", "R_Hip", "L_Hip", "L_Knee", "L_Ankle", "R_Wrist", "R_Elbow", "R_Shoulder", "L_Shoulder",
    "L_Elbow", "L_Wrist", "Neck", "-", "Pelvis", "-", "Torso", "Nose", "Head_top", "-", "-", "-", "-", "-",
)  # fmt: skip
"""Human3.6M's name of each of SPIN's 24 joints; "-" is one that this twin leaves unmeasured."""


def write_panoptic(
    root: Path, world: World, scene: str = "160422_haggling1", frames: int = 2
) -> dict[str, np.ndarray]:
    """Pictures twice as large as annotated; wrists of the first person unmeasured. Returns id -> 17 joints, metres."""
    rng, content, truths = world.rng, [], {}
    faces = world.bodies["neutral"].faces.numpy()
    for frame in range(frames):
        people = [
            world.moment(g, rng.normal(0, 1, 10), np.array([x, 0, 3.6]), np.eye(3), np.zeros(3))
            for g, x in (("male", -0.6), ("female", 0.6))
        ]
        flat, solid, boxes = [], [], []
        name = f"{scene}/hdImgs/00_16/00_16_{frame:08d}.jpg"
        for p, m in enumerate(people):
            joints = world.h36m / world.h36m.sum(1, keepdims=True) @ m.vertices
            truths[f"{scene}/{scene}/hdImgs/00_16/00_16_{frame:08d}/{p}"] = joints
            three, two = np.zeros((24, 4)), np.zeros((24, 3))
            for i, joint in enumerate(SPIN_ORDER):
                if joint != "-" and not (p == 0 and joint.endswith("Wrist")):
                    at = joints[H36M17.index(joint)]
                    three[i] = *at, 1
                    two[i] = *(project(at[None])[0] / 2), 1
            pixels = project(m.vertices) / 2
            flat, solid, boxes = [*flat, two], [*solid, three], [*boxes, [*pixels.min(0), *pixels.max(0)]]
        content.append({
            "filename": name, "width": WIDTH // 2, "height": HEIGHT // 2, "bboxes": np.array(boxes),
            "kpts2d": np.array(flat), "kpts3d": np.array(solid),
        })  # fmt: skip
        picture(root / "Panoptic" / name, [m.vertices for m in people], faces, rng)
    path = root / "Panoptic" / "processed" / "annotations" / f"{scene}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))
    return truths
