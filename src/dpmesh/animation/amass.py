"""AMASS files: the fields that SMPL add-ons of Blender, Unity and Unreal read.

Source: the AMASS data set's documentation (npz fields `poses`, `betas`, `trans`, `gender`, `mocap_framerate`).
"""

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

_Z_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""Camera frame (x right, y down, z forward) to AMASS's world: x right, y away from the camera, z up."""


def amass_fields(
    global_orient: Float[np.ndarray, "t 3"],
    body_pose: Float[np.ndarray, "t 69"],
    betas: Float[np.ndarray, "10"],
    transl: Float[np.ndarray, "t 3"],
    pelvis: Float[np.ndarray, "3"],
    fps: float,
) -> dict[str, np.ndarray]:
    """The arrays of a file, without pickles.

    pelvis: the rest pose's root joint, metres: SMPL turns about it, so the translation of a turned frame needs it.
    """
    root = Rotation.from_matrix(_Z_UP) * Rotation.from_rotvec(global_orient)
    trans = (pelvis + transl) @ _Z_UP.T - pelvis
    return {
        "poses": np.concatenate([root.as_rotvec().astype(np.float32), body_pose], 1),
        "betas": betas.astype(np.float64),
        "trans": trans.astype(np.float32),
        "gender": np.array("neutral"),
        "mocap_framerate": np.array(float(fps)),
        "mocap_frame_rate": np.array(float(fps)),
    }
