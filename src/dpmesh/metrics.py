"""MPJPE, PA-MPJPE and MPVE in millimetres, one number for each person, float64."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from dpmesh.geometry.align import procrustes

Points = Float[NDArray[np.floating], "b n 3"]
PerPerson = Float[NDArray[np.float64], " b"]
MILLIMETRES = 1000.0


def mpjpe(predicted: Points, truth: Points) -> PerPerson:
    """Mean distance of joints given in metres, each set relative to a root that the caller has subtracted."""
    return (
        np.linalg.norm(predicted.astype(np.float64) - truth.astype(np.float64), axis=-1).mean(1) * MILLIMETRES
    )


def pa_mpjpe(predicted: Points, truth: Points) -> PerPerson:
    """Mean distance after a similarity alignment of the prediction onto the truth."""
    return mpjpe(procrustes(predicted, truth), truth)


def mpve(predicted: Points, truth: Points) -> PerPerson:
    """Mean distance of vertices given in metres, relative to roots that the caller has subtracted."""
    return mpjpe(predicted, truth)
