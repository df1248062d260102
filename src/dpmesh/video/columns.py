"""The columns of a video's result, and its floor."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dpmesh.geometry.floor import Floor

ROW_SHAPES: dict[str, tuple[int, ...]] = {
    "frame": (), "time": (), "track": (), "interpolated": (), "box": (4,), "score": (), "keypoints2d": (17, 3),
    "global_orient": (3,), "body_pose": (69,), "transl": (3,), "joints3d": (30, 3), "joints2d": (30, 2),
    "joint_sigma": (30,), "contacts": (4,),
}  # fmt: skip
"""One row is one person in one frame."""
TRACK_SHAPES: dict[str, tuple[int, ...]] = {"numbers": (), "betas": (10,)}
KINDS: dict[str, type[np.generic]] = {
    "frame": np.int64, "track": np.int64, "interpolated": np.bool_, "contacts": np.bool_, "time": np.float64,
    "numbers": np.int64, "K": np.float64,
}  # fmt: skip
"""Types of the arrays that are not float32."""
ARRAYS = (*ROW_SHAPES, *TRACK_SHAPES, "K")


@dataclass(frozen=True, eq=False)
class Ground:
    """The floor in the camera frame, metres. world = rotation @ camera + translation: y up, the floor at y = 0."""

    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]

    @property
    def up(self) -> Float[np.ndarray, "3"]:
        """Camera frame."""
        return self.rotation[1]

    @property
    def floor(self) -> Floor:
        """Camera frame."""
        return Floor(np.asarray(self.up, np.float64), float(self.translation[1]))

    def to_world(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        return points @ self.rotation.T + self.translation

    def heights(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n"]:
        return np.asarray(points @ self.rotation[1] + self.translation[1])
