"""Six numbers for a rotation (Zhou et al., CVPR 2019), in the released code's reading: a 3×2 matrix, row by row."""

import importlib
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def rotation_to_6d(rotations: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 6"]:
    """The first two columns of a rotation matrix, row by row."""
    return rotations[..., :2].flatten(-2)


def rotation_from_6d(numbers: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices by Gram-Schmidt on the two columns; inverse of rotation_to_6d.

    As roma.special_gramschmidt, whose result has the batch size of the moment in an exported graph.
    """
    first, second = numbers[..., 0::2], numbers[..., 1::2]
    first = F.normalize(first, dim=-1)
    second = F.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.cross(first, second, dim=-1)], dim=-1)


def nearest_rotation(matrices: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotations nearest to any matrices, say to means of rotations."""
    return _roma().special_procrustes(matrices)


def axis_angle(rotations: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Rotation vectors, radians."""
    return _roma().rotmat_to_rotvec(rotations)


def rotation_matrix(vectors: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Matrices of rotation vectors, radians."""
    return _roma().rotvec_to_rotmat(vectors)


def _roma() -> Any:
    """Imported on first use: it loads torch's compiler, 70 MB and a second that the model does without."""
    return importlib.import_module("roma")
