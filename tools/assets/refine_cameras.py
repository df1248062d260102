"""Refine where cameras stand from the joints of a person that all of them see (bundle adjustment).

The extrinsics of a calibration can be off by half a degree, which is 15 px at a focal length of 1680 px: then each
camera's reprojection errors have a mean of their own. Rotations and places are fitted to the 2D keypoints, near the
calibration (`ANGLE`, `PLACE`); the intrinsics stay, and the scale is the calibration's.
"""

from dataclasses import replace

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from tools.assets.pose2sim_videos import Array, Camera
from tools.assets.triangulate import View, projected_with, triangulate_flat

ANGLE, PLACE = np.deg2rad(0.5), 0.02
"""Deviations expected of the calibration: radians, metres."""
SCALE = 6.0
"""Of the robust loss, pixels."""


def refine(cameras: list[Camera], views: list[View]) -> list[Camera]:
    """views: of `triangulate`, one or more a camera. The world's frame and scale stay, except for what `ANGLE` and
    `PLACE` let them move."""
    points = np.stack([view.points for view in views], 2)
    points = points.reshape(-1, *points.shape[2:])
    of_view = np.array([view.camera for view in views])

    def moved(x: Array) -> list[Camera]:
        made: list[Camera] = []
        for part, camera in zip(x.reshape(len(cameras), 6), cameras, strict=True):
            turn = Rotation.from_rotvec(part[:3] * ANGLE).as_matrix()
            made.append(replace(camera, R=turn @ camera.R, t=turn @ camera.t + part[3:] * PLACE))
        return made

    def matrices_of(x: Array) -> Array:
        each = moved(x)
        return np.stack([each[index].P for index in of_view])

    x = np.zeros(6 * len(cameras))
    for gate in (40.0, 25.0, 15.0):
        solid, agree = triangulate_flat(points, matrices_of(x), of_view, gate)
        used = agree.sum(1) >= 3
        chosen, weight = points[used][..., :2], np.sqrt(points[used][..., 2] * agree[used])
        start = solid[used]

        def errors(x: Array, start: Array = start, chosen: Array = chosen, weight: Array = weight) -> Array:
            P = matrices_of(x)
            off = (projected_with(start, chosen, weight**2, P) - chosen) * weight[..., None] / SCALE
            return np.concatenate([np.sign(off) * np.sqrt(2 * (np.sqrt(1 + off**2) - 1)), x], axis=None)

        x = least_squares(errors, x, x_scale=1.0, max_nfev=15).x
    return moved(x)
