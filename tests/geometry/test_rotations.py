"""Rotation vectors and matrices: equal to roma bit for bit, and inverse to each other."""

import math
import subprocess
import sys

import pytest
import roma
import torch

from dpmesh.geometry.rotations import axis_angle, nearest_rotation, rotation_matrix


def vectors(dtype: torch.dtype) -> torch.Tensor:
    """(7, 4000, 3): of every length from 0 and 1e-9 to just above π, some along an axis."""
    directions = torch.randn(7, 4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    directions[:, :300, 1:] = 0
    directions = directions / directions.norm(dim=-1, keepdim=True)
    lengths = torch.cat([torch.zeros(10), torch.logspace(-9, 0, 2000), torch.linspace(1, 3.2, 1980)])
    edges = torch.tensor([math.pi, math.pi / 2, math.pi - 1e-6, 1e-6, 0.14, 0.28, 5e-3, 1e-2, 2.0, 3.0])
    return (directions * torch.cat([lengths, edges])[:, None]).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_directions_equal_roma_bit_for_bit(dtype: torch.dtype) -> None:
    rotvecs = vectors(dtype)
    matrices = rotation_matrix(rotvecs)
    assert torch.equal(matrices, roma.rotvec_to_rotmat(rotvecs))
    assert torch.equal(axis_angle(matrices), roma.rotmat_to_rotvec(matrices))
    diagonal = torch.diag_embed(torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=dtype))
    assert torch.equal(axis_angle(diagonal), roma.rotmat_to_rotvec(diagonal))


def test_axis_angle_inverts_rotation_matrix() -> None:
    rotvecs = vectors(torch.float64)[:, :-100]  # up to π: beyond, the shorter way round is returned
    rotvecs = rotvecs[rotvecs.norm(dim=-1) < math.pi - 1e-6]
    torch.testing.assert_close(axis_angle(rotation_matrix(rotvecs)), rotvecs, rtol=1e-7, atol=1e-7)


def test_shapes_without_rows_and_without_batch() -> None:
    assert axis_angle(rotation_matrix(torch.zeros(0, 24, 3))).shape == (0, 24, 3)
    assert rotation_matrix(torch.zeros(3)).shape == (3, 3)


def test_they_do_not_load_roma() -> None:
    code = "import sys, torch; from dpmesh.geometry.rotations import axis_angle as a; a(torch.eye(3)); "
    code += "assert 'roma' not in sys.modules and 'torch._dynamo' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_nearest_rotation_is_romas() -> None:
    matrices = torch.randn(200, 3, 3, generator=torch.Generator().manual_seed(0))
    found = nearest_rotation(matrices)
    torch.testing.assert_close(found, roma.special_procrustes(matrices), atol=1e-4, rtol=0)
    assert (torch.linalg.det(found) > 0.99).all()
