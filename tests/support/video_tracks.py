"""Two people for a second, with poses, places and joints that belong together."""

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from dpmesh.body.layer import BodyModel
from dpmesh.geometry.camera import project
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.video.columns import KINDS, ROW_SHAPES
from dpmesh.video.tracks import Tracks

FPS = 25.0
K = np.array([[900.0, 0, 320], [0, 900, 240], [0, 0, 1]])


def rows_of_a_frame(body: BodyModel, betas: np.ndarray, frame: int, person: int) -> dict[str, np.ndarray]:
    swing = np.sin(2 * np.pi * frame / 25)
    pose = np.zeros((23, 3))
    pose[15:17] = [0.2, 0.3 * swing, 0.8 - person]
    orient = Rotation.from_euler("xy", [np.pi, 0.4 * swing + person]).as_rotvec()
    transl = np.array([person - 0.5 + 0.02 * frame, 0.1, 4.0 + person])
    turns = rotation_matrix(torch.from_numpy(np.concatenate([orient[None], pose]))[None].float())
    with torch.no_grad():
        joints = body.joints30_only(torch.from_numpy(betas), turns, torch.from_numpy(transl[None]).float())
    solid = joints[0].numpy()
    values = {
        "frame": frame, "time": frame / FPS, "track": 3 * person, "interpolated": False, "score": 0.9,
        "box": np.zeros(4), "keypoints2d": np.ones((17, 3)), "global_orient": orient, "body_pose": pose.ravel(),
        "transl": transl, "joints3d": solid, "joints2d": project(solid, K), "joint_sigma": np.full(30, 0.05),
        "contacts": np.zeros(4, bool),
    }  # fmt: skip
    return {name: np.asarray(value) for name, value in values.items()}


def two_people(body: BodyModel, frames: int = 25, gap: range = range(8, 13)) -> Tracks:
    """Numbers 0 and 3; the second one is missing in the frames of the gap."""
    betas = np.random.default_rng(0).normal(size=(2, 10)).astype(np.float32)
    rows = [
        rows_of_a_frame(body, betas[person : person + 1], frame, person)
        for frame in range(frames)
        for person in (0, 1)
        if not (person == 1 and frame in gap)
    ]
    columns = {
        name: np.stack([row[name] for row in rows]).astype(KINDS.get(name, np.float32)) for name in ROW_SHAPES
    }
    return Tracks(
        **columns, numbers=np.array([0, 3]), betas=betas, K=K, fps=FPS, image_size=(480, 640), frames=frames
    )
