"""Rotations as matrices, as rotation vectors, and as six numbers (Zhou et al., CVPR 2019).

The six numbers are the first two columns of the matrix, stored row by row as in the released code. The functions repeat
the arithmetic of roma, which is slow to import because it loads torch's compiler.
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

_SMALL = 1e-6
"""Radians: below this the first order of a rotation is exact."""


def rotation_to_6d(rotations: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 6"]:
    """Six numbers of rotation matrices."""
    return rotations[..., :2].flatten(-2)


def rotation_from_6d(numbers: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices of six numbers, by Gram-Schmidt on the two columns.

    Like roma.special_gramschmidt, which fixes the batch size of the trace in an exported graph.
    """
    first, second = numbers[..., 0::2], numbers[..., 1::2]
    first = F.normalize(first, dim=-1)
    second = F.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.cross(first, second, dim=-1)], dim=-1)


def nearest_rotation(matrices: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotations nearest to arbitrary matrices (orthogonal Procrustes), for example to means of rotations."""
    left, _, right = torch.linalg.svd(matrices)  # pyright: ignore  (torch's stub)
    left, right = cast("Tensor", left), cast("Tensor", right)
    sign = (left @ right).det()
    return torch.cat([left[..., :2], left[..., 2:] * sign[..., None, None]], -1) @ right


def axis_angle(rotations: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Rotation vectors (radians, at most π long) of rotation matrices.

    By the unit quaternion (Markley, JGCD 31(2), 2008). Equals roma.rotmat_to_rotvec.
    """
    quaternion = _unit_quaternion(rotations)
    quaternion = quaternion * torch.where(quaternion[..., 3:] > 0, 1.0, -1.0)  # the shorter way round
    xyz, w = quaternion[..., :3], quaternion[..., 3]
    half = torch.atan2(_length(xyz), w)
    return (2.0 * _inverse_sinc(half))[..., None] * xyz


def rotation_matrix(vectors: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices of rotation vectors (radians).

    Rodrigues' formula, and its first order below 1e-6 radians. Equals roma.rotvec_to_rotmat.
    """
    angle = _length(vectors)[..., None]
    x, y, z = (vectors / angle.clamp_min(_SMALL)).unbind(-1)
    angle = angle[..., 0]
    sine, versine = torch.sin(angle), 1 - torch.cos(angle)
    xs, ys, zs = x * sine, y * sine, z * sine
    xy, xz, yz = x * y * versine, x * z * versine, y * z * versine
    xx, yy, zz = x**2 * versine, y**2 * versine, z**2 * versine
    rows = (1 - yy - zz, xy - zs, xz + ys), (xy + zs, 1 - xx - zz, yz - xs), (xz - ys, yz + xs, 1 - xx - yy)
    exact = torch.stack([torch.stack(row, -1) for row in rows], -2)
    x, y, z = vectors.unbind(-1)
    one = torch.ones_like(x)
    rows = (one, -z, y), (z, one, -x), (-y, x, one)
    first_order = torch.stack([torch.stack(row, -1) for row in rows], -2)
    return torch.where((angle < _SMALL)[..., None, None], first_order, exact)


def _length(vectors: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    return torch.linalg.vector_norm(vectors, dim=-1)  # pyright: ignore  (torch's stub)


def _unit_quaternion(rotations: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """x y z w of either sign. Of the rows of 4 q qᵀ the one with the greatest diagonal is normalised."""
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in rotations.unbind(-2))
    rows = (
        (1 + a - e - i, d + b, g + c, h - f),
        (b + d, 1 + e - i - a, h + f, c - g),
        (c + g, f + h, 1 + i - a - e, d - b),
        (h - f, c - g, d - b, 1 + a + e + i),
    )
    outer = torch.stack([torch.stack(row, -1) for row in rows], -2)
    largest = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = outer.gather(-2, largest[..., None, None].expand(*largest.shape, 1, 4))[..., 0, :]
    return row / _length(row)[..., None]


def _inverse_sinc(x: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """x / sin x, by its Taylor series near 0: up to where the series' error equals the rounding of the quotient."""
    near = x.abs() < 2 * torch.finfo(x.dtype).eps ** (1 / 6)
    series = 1 + x**2 / 6 + 7 * x**4 / 360
    return torch.where(near, series, x / torch.where(near, torch.ones_like(x), torch.sin(x)))
