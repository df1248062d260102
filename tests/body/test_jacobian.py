"""The closed-form derivative of the joints against torch's, of a body without pose correctives: there it is exact."""

from dataclasses import replace

import numpy as np
import torch

from dpmesh.body.files import free_body
from dpmesh.body.jacobian import PARAMETERS, TURNS, JointJacobian
from dpmesh.body.layer import BodyModel
from dpmesh.geometry.rotations import rotation_matrix


def _derivatives(body: BodyModel) -> tuple[torch.Tensor, torch.Tensor]:
    """In closed form, and torch's: (2, 30, 3, 85)."""
    torch.manual_seed(0)
    rotations, betas = rotation_matrix(torch.randn(2, 24, 3) * 0.5), torch.randn(2, 10)
    axes = torch.eye(3).expand(2, 24, 3, 3)

    def joints(x: torch.Tensor) -> torch.Tensor:
        turns = rotation_matrix(x[:, :TURNS].reshape(2, 24, 3))
        return body.joints30_only(betas + x[:, TURNS:-3], rotations @ turns, x[:, -3:])

    start = torch.full((2, PARAMETERS), 1e-9)  # the rotation vector 0 has no derivative of its length
    by_torch = torch.autograd.functional.jacobian(lambda x: joints(x).sum(0), start)
    return JointJacobian(body)(betas, rotations, axes), by_torch.permute(2, 0, 1, 3)


def test_the_derivative_is_torchs() -> None:
    arrays = free_body()
    plain = replace(arrays, posedirs=np.zeros_like(arrays.posedirs))
    closed, by_torch = _derivatives(BodyModel(plain))
    assert by_torch.abs().max() > 0.5
    torch.testing.assert_close(closed, by_torch, atol=2e-5, rtol=0)


def test_pose_correctives_change_the_derivative_little() -> None:
    closed, by_torch = _derivatives(BodyModel(free_body()))
    assert (closed - by_torch).abs().max() < 0.01  # metres a radian
