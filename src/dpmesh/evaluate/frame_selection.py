"""Which sequences, frames and people of 3DPW, its subsets (3DPW-OC, -PC, -Crowd) and pose2sim a protocol evaluates.

The lists themselves are in published_protocols.py and data/datasets/threedpw.py; here they are applied. 3DCrowdNet's
JSON files are filtered by the person rules already; 3DPW_oc.json and 3DPW_pc.json define themselves
(readers/threedpw.py).
"""

import numpy as np
from numpy.typing import NDArray

from dpmesh.data.datasets.threedpw import BOX_ENLARGED, Sequence
from dpmesh.evaluate.protocol import Selection, SelectionWithout


def frame_selected(selection: Selection, sequence: str, frame: int) -> bool:
    """Whether the selection's sequences, families and frames include this frame."""
    if not _named(selection, sequence):
        return False
    return not selection.frames or any(
        name == sequence and first <= frame < end for name, first, end in selection.frames
    )


def sequence_selected(selection: Selection, sequence: str) -> bool:
    """Whether the selection includes any frame of the sequence, so that its file must be read."""
    if selection.frames:
        return any(name == sequence for name, *_ in selection.frames)
    return _named(selection, sequence)


def _named(selection: Selection, sequence: str) -> bool:
    if isinstance(selection, SelectionWithout) and selection.leaves_out(sequence):
        return False
    if selection.sequences and sequence not in selection.sequences:
        return False
    return not selection.families or sequence.rpartition("_")[0] in selection.families


def left_out_because(
    selection: Selection, people: Sequence, person: int, frame: int, any_joint_inside: bool
) -> str:
    """Why the selection's rule leaves a person of a frame out; "" where it does not."""
    if not people.campose_valid[person, frame]:
        return "campose_valid is 0"
    if selection.rule == "posed and inside" and not any_joint_inside:
        return "no joint inside the picture"
    if selection.rule == "posed with keypoints" and not people.keypoints[person, frame].any():
        return "poses2d is all zero"
    return ""


def joints_inside(
    joints: NDArray[np.float64], K: NDArray[np.float64], size: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which joints (f, 24, 3; metres, camera frame) are inside the image of size (h, w), as (f, 24), and an annotated
    box (f, 4) x1 y1 x2 y2 around those (zero without any)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = (joints @ K.T)[..., :2] / joints[..., 2:]
        ok = (joints[..., 2] > 0) & (pixels >= 0).all(-1) & (pixels < np.array(size[::-1])).all(-1)
    low = np.where(ok[..., None], pixels, np.inf).min(1)
    high = np.where(ok[..., None], pixels, -np.inf).max(1)
    with np.errstate(invalid="ignore"):
        middle, half = (low + high) / 2, (high - low) / 2 * BOX_ENLARGED
    boxes = np.concatenate([middle - half, middle + half], 1)
    return ok, np.where(ok.any(1, keepdims=True), boxes, 0.0)
