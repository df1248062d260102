"""Linear blend skinning of the body and of what is worn on it."""

import numpy as np
from jaxtyping import Float32, Int32
from numpy.typing import NDArray

from dpmesh.render.typed import compiled

Array32 = NDArray[np.float32]


def skinned(
    rest: Float32[NDArray[np.float32], "v 3"],
    transforms: Float32[NDArray[np.float32], "24 3 4"],
    transl: Float32[NDArray[np.float32], "3"],
    bones: Int32[NDArray[np.int32], "v b"],
    weights: Float32[NDArray[np.float32], "v b"],
) -> Float32[NDArray[np.float32], "v 3"]:
    """Linear blend skinning. bones: joints by falling weight; the first weight of 0 ends a vertex's list."""
    out = np.empty_like(rest)
    _skin(rest, transforms, transl, bones, weights, out)
    return out


@compiled
def _skin(
    rest: Array32,
    transforms: Array32,
    transl: Array32,
    bones: NDArray[np.int32],
    weights: Array32,
    out: Array32,
) -> None:
    for v in range(rest.shape[0]):
        a, b, c = rest[v, 0], rest[v, 1], rest[v, 2]
        x, y, z = np.float32(0), np.float32(0), np.float32(0)
        for k in range(bones.shape[1]):
            w = weights[v, k]
            if w == 0:
                break
            t = transforms[bones[v, k]]
            x += w * (t[0, 0] * a + t[0, 1] * b + t[0, 2] * c + t[0, 3])
            y += w * (t[1, 0] * a + t[1, 1] * b + t[1, 2] * c + t[1, 3])
            z += w * (t[2, 0] * a + t[2, 1] * b + t[2, 2] * c + t[2, 3])
        out[v, 0], out[v, 1], out[v, 2] = x + transl[0], y + transl[1], z + transl[2]
