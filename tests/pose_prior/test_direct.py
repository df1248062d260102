"""The pose head without a prior: the code is the pose."""

import pytest
import torch

from dpmesh.errors import ConfigError
from dpmesh.geometry.rotations import rotation_from_6d, rotation_to_6d
from dpmesh.pose_prior.prior import DirectConfig, DirectPose, build_prior


def test_zeros_are_the_rest_pose():
    head = build_prior(DirectConfig(), "soft")
    assert isinstance(head, DirectPose) and head.latent_shape == (126,) and not list(head.parameters())
    rest = head.decode_latent(torch.zeros(2, 126))
    torch.testing.assert_close(rest, torch.eye(3).expand(2, 23, 3, 3))


def test_any_pose_has_its_code_and_the_hands_are_still():
    torch.manual_seed(0)
    head, eye = DirectPose(DirectConfig()), torch.eye(3)
    pose = rotation_from_6d(torch.randn(4, 21, 6))
    code = (rotation_to_6d(pose) - rotation_to_6d(eye)).flatten(1).requires_grad_()
    rotations = head.decode_latent(code)
    torch.testing.assert_close(rotations[:, :21], pose, atol=1e-5, rtol=1e-5)
    assert torch.equal(rotations[:, 21:], eye.expand(4, 2, 3, 3))
    rotations[..., 0, 1].sum().backward()
    assert (code.grad.unflatten(1, (21, 6)).abs().sum(-1) > 0).all()


def test_more_joints_than_smpl_has_are_refused():
    assert DirectPose(DirectConfig(joints=23)).decode_latent(torch.zeros(1, 138)).shape == (1, 23, 3, 3)
    for joints in (0, 24):
        with pytest.raises(ConfigError, match="SMPL has 23"):
            DirectConfig(joints=joints)
