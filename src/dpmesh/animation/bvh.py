"""BVH: a person's motion as a skeleton in its T-pose with this body's bone lengths, and Euler angles per frame.

Frame of the file: y up, the camera at the origin looking along -z (the camera frame after half a turn about x), or the
world frame where one is given.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from dpmesh.skeletons import SMPL24, SMPL_PARENTS

TO_YUP = np.array([1.0, -1.0, -1.0])
"""Camera frame (x right, y down, z forward) to the file's frame, by component."""
UNITS = {"m": 1.0, "cm": 100.0}
_CHUNK = 512
"""Frames that are converted at a time."""
_CHANNELS = "Zrotation Xrotation Yrotation"


def bvh_lines(
    rest: Float[np.ndarray, "24 3"],
    rotations: Float[np.ndarray, "t 24 3"],
    transl: Float[np.ndarray, "t 3"],
    fps: float,
    unit: str = "cm",
    names: Sequence[str] = SMPL24.joints,
) -> Iterator[str]:
    """The file's lines.

    rest: the body's joints in the rest pose, metres, y up. rotations: axis-angle of each joint relative to its parent,
    of the root body to camera frame. transl: metres, camera frame, added after skinning. unit: of lengths, "m" or "cm".
    """
    scale = UNITS[unit]
    offsets = rest - rest[np.maximum(SMPL_PARENTS, 0)]
    offsets[0] = 0
    children = [
        [k for k, parent in enumerate(SMPL_PARENTS) if parent == joint] for joint in range(len(names))
    ]
    lines = ["HIERARCHY"]

    def joint(index: int, depth: int) -> list[int]:
        pad = "  " * depth
        kind = "ROOT" if index == 0 else "JOINT"
        lines.append(f"{pad}{kind} {names[index]}")
        lines.append(pad + "{")
        lines.append(f"{pad}  OFFSET {_numbers(offsets[index] * scale)}")
        place = "6 Xposition Yposition Zposition " if index == 0 else "3 "
        lines.append(f"{pad}  CHANNELS {place}{_CHANNELS}")
        order = [index]
        for child in children[index]:
            order += joint(child, depth + 1)
        if not children[index]:
            end = offsets[index] / max(np.linalg.norm(offsets[index]), 1e-9) * 0.08  # a tip for viewers
            lines.extend(
                [f"{pad}  End Site", pad + "  {", f"{pad}    OFFSET {_numbers(end * scale)}", pad + "  }"]
            )
        lines.append(pad + "}")
        return order

    order = joint(0, 0)
    frames = len(rotations)
    yield from [*lines, "MOTION", f"Frames: {frames}", f"Frame Time: {1 / fps:.8f}"]
    for at in range(0, frames, _CHUNK):
        part = rotations[at : at + _CHUNK]
        turns = Rotation.from_rotvec(part.reshape(-1, 3)).as_matrix().reshape(len(part), -1, 3, 3)
        turns[:, 0] = TO_YUP[:, None] * turns[:, 0]
        angles = Rotation.from_matrix(turns.reshape(-1, 3, 3)).as_euler("ZXY", degrees=True)
        place = (rest[0] + transl[at : at + _CHUNK]) * TO_YUP * scale
        turned = angles.reshape(len(part), -1, 3)[:, order].reshape(len(part), -1)
        yield from map(_numbers, np.concatenate([place, turned], axis=1))


def _numbers(values: Float[np.ndarray, " n"]) -> str:
    return " ".join(f"{value:.6f}" for value in values)
