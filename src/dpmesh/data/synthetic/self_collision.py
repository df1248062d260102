"""Self-collision of a body, tested with capsules around the limbs."""

import numpy as np
from jaxtyping import Bool, Float32
from numpy.typing import NDArray

from dpmesh.render.typed import compiled
from dpmesh.skeletons import JOINTS30

Array32 = NDArray[np.float32]

# A capsule: from and to which joint, where it starts on the way (limbs meet at their joints), radius in metres.
_CAPSULES = (
    ("Pelvis", "Spine", 0.0, 0.11), ("Spine", "Neck", 0.0, 0.11), ("Neck", "Head_top", 0.35, 0.08),
    ("L_Elbow", "L_Hand", 0.1, 0.035), ("R_Elbow", "R_Hand", 0.1, 0.035),
    ("L_Hip", "L_Knee", 0.4, 0.065), ("R_Hip", "R_Knee", 0.4, 0.065),
    ("L_Knee", "L_Ankle", 0.1, 0.045), ("R_Knee", "R_Ankle", 0.1, 0.045),
)  # fmt: skip
_ALLOWED = 0.6
"""Capsules may come as near as this share of their radii's sum: flesh gives way, hands lie on hips."""
_NEIGHBOURS = {(0, 1), (1, 2), (0, 5), (0, 6), (5, 7), (6, 8)}  # these meet in any pose
_PAIRS = np.array(
    [(a, b) for b in range(3, len(_CAPSULES)) for a in range(b) if (a, b) not in _NEIGHBOURS], np.int64
)
_ENDS = np.array([[JOINTS30.index(start), JOINTS30.index(end)] for start, end, _, _ in _CAPSULES], np.int64)
_SIZES = np.array([[start, radius] for _, _, start, radius in _CAPSULES], np.float32)


def tangled(joints: Float32[Array32, "n 30 3"]) -> Bool[NDArray[np.bool_], "n"]:
    """Bodies (metres) with a limb through the trunk, the head or another limb."""
    out = np.zeros(len(joints), bool)
    _tangled(np.ascontiguousarray(joints, np.float32), _PAIRS, _ENDS, _SIZES, _ALLOWED, out)
    return out


@compiled
def _tangled(
    joints: Array32, pairs: NDArray[np.int64], ends: NDArray[np.int64], sizes: Array32, allowed: float,
    out: NDArray[np.bool_],
) -> None:  # fmt: skip
    for n in range(joints.shape[0]):
        for p in range(pairs.shape[0]):
            i, j = pairs[p]
            # The shortest way between two segments a + s u and b + t v, s and t in [0, 1].
            a = joints[n, ends[i, 0]] + sizes[i, 0] * (joints[n, ends[i, 1]] - joints[n, ends[i, 0]])
            b = joints[n, ends[j, 0]] + sizes[j, 0] * (joints[n, ends[j, 1]] - joints[n, ends[j, 0]])
            u, v = joints[n, ends[i, 1]] - a, joints[n, ends[j, 1]] - b
            w = a - b
            uu, uv, vv = (u * u).sum(), (u * v).sum(), (v * v).sum()
            uw, vw = (u * w).sum(), (v * w).sum()
            spread = uu * vv - uv * uv
            s = min(max((uv * vw - vv * uw) / spread, 0.0), 1.0) if spread > 1e-9 else 0.0
            t = (uv * s + vw) / max(vv, 1e-9)
            if t < 0 or t > 1:
                t = min(max(t, 0.0), 1.0)
                s = min(max((uv * t - uw) / max(uu, 1e-9), 0.0), 1.0)
            apart = w + s * u - t * v
            if (apart * apart).sum() < (allowed * (sizes[i, 1] + sizes[j, 1])) ** 2:
                out[n] = True
                break
