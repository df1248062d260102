"""Checks that arrays in SMPL's layout describe a body: its height, its closed mesh, its joints and its directions."""

import numpy as np
from jaxtyping import Float, Integer

from dpmesh.errors import InputError

FIX = "The file is damaged or is not a body in SMPL's format."
_HEIGHT = (0.4, 3.0)
"""Metres of the rest pose: from an infant to more than the tallest adult."""
_OPEN_EDGES = 0.1
"""Largest share of edges that are not between exactly two faces; SMPL's mesh and the free body have none."""
_EDGE = 0.1
"""Largest median length of an edge, in heights; a hundredth in SMPL's mesh."""
_JOINTS_SPAN = 0.4
"""Smallest height of the box around the joints, in heights; 0.8 from feet to head in SMPL."""
_JOINTS_OUTSIDE = 0.05
"""Largest distance of a joint from the body's bounding box, in heights."""
_NEGATIVE_WEIGHT = -1e-3
_SHAPE, _POSE = 0.5, 2.0
"""Metres: largest movement of a vertex for one standard deviation of shape, and for one entry of R - I."""


def check_anatomy(
    v_template: Float[np.ndarray, "v 3"],
    faces: Integer[np.ndarray, "f 3"],
    weights: Float[np.ndarray, "v j"],
    joints: Float[np.ndarray, "j 3"],
    shapedirs: Float[np.ndarray, "v 3 b"],
    posedirs: Float[np.ndarray, "v 3 p"],
) -> None:
    """Raise InputError for arrays of valid shapes that are no body; the error has the failed check and its number.

    v_template, joints: metres, y up, in the rest pose.
    """
    low, high = v_template.min(0), v_template.max(0)
    height = float(high[1] - low[1])
    if not _HEIGHT[0] <= height <= _HEIGHT[1]:
        _refuse(f"the body is {height:.3g} m high; a body has {_HEIGHT[0]} to {_HEIGHT[1]} m")
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    count = len(v_template)
    keys, faces_of_edge = np.unique(
        edges[:, 0] * count + edges[:, 1], return_counts=True
    )  # faster than of pairs
    edges = np.stack(np.divmod(keys, count), axis=1)
    if (share := float((faces_of_edge != 2).mean())) > _OPEN_EDGES:
        _refuse(f"the mesh is not closed: {share:.0%} of its edges are not between two faces")
    length = float(np.median(np.linalg.norm(v_template[edges[:, 0]] - v_template[edges[:, 1]], axis=1)))
    if length > _EDGE * height:
        _refuse(f"the mesh is no surface: half of its edges are longer than {length:.3g} m")
    if (least := float(weights.min())) < _NEGATIVE_WEIGHT:
        _refuse(f"weights hold {least:.3g}; skinning weights are not negative")
    outside = float(np.maximum(low - joints, joints - high).max())
    if outside > _JOINTS_OUTSIDE * height:
        _refuse(f"J_regressor places a joint {outside:.3g} m outside the body")
    if (span := float(np.ptp(joints[:, 1]))) < _JOINTS_SPAN * height:
        _refuse(f"J_regressor places all joints within {span:.3g} m of height, of {height:.3g} m")
    for name, directions, most in (("shapedirs", shapedirs, _SHAPE), ("posedirs", posedirs, _POSE)):
        if (largest := float(np.abs(directions).max(initial=0))) > most:
            _refuse(f"{name} move a vertex by {largest:.3g} m; at most {most} m is plausible")


def _refuse(what: str) -> None:
    raise InputError(what, fix=FIX)
