"""Six numbers for a rotation (Zhou et al., CVPR 2019), in the released code's reading: a 3×2 matrix, row by row."""

import roma  # pyright: ignore[reportMissingTypeStubs]  (roma has none)
from jaxtyping import Float
from torch import Tensor


def rotation_to_6d(rotations: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 6"]:
    """The first two columns of a rotation matrix, row by row."""
    return rotations[..., :2].flatten(-2)


def rotation_from_6d(numbers: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices by Gram-Schmidt on the two columns; inverse of rotation_to_6d."""
    columns = numbers.unflatten(-1, (3, 2))  # pyright: ignore[reportUnknownVariableType]  (torch's stub)
    return roma.special_gramschmidt(columns)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def axis_angle(rotations: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Rotation vectors, radians."""
    return roma.rotmat_to_rotvec(rotations)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def rotation_matrix(vectors: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Matrices of rotation vectors, radians."""
    return roma.rotvec_to_rotmat(vectors)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
