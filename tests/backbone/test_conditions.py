"""Heatmaps, prompt and joint readings: positions in pixels, invisible joints, identities."""

from collections.abc import Callable

import pytest
import torch

from dpmesh.backbone.features import JointReadings
from dpmesh.backbone.joint_reading import PARTS, FusedReading, JointReading
from dpmesh.backbone.prompt import JointPrompt, PromptConfig
from dpmesh.geometry.crop_camera import draw_heatmaps


def test_a_heatmap_peaks_where_the_joint_is():
    joints = torch.tensor([[[80.0, 160.0], [8.0, 0.0]]])
    heat = draw_heatmaps(joints, torch.ones(1, 2))
    assert heat.shape == (1, 2, 32, 32)
    assert heat[0, 0, 20, 10] == 1  # row y / 8, column x / 8
    assert heat[0].flatten(1).argmax(1).tolist() == [20 * 32 + 10, 1]
    torch.testing.assert_close(heat[0, 0, 20, 15], torch.tensor(-(5.0**2) / (2 * 2.5**2)).exp())


def test_an_invisible_joint_draws_nothing():
    heat = draw_heatmaps(torch.full((1, 2, 2), 100.0), torch.tensor([[1.0, 0.0]]))
    assert heat[0, 0].max() > 0.9
    assert not heat[0, 1].any()


def test_prompt_of_the_paper_ignores_invisible_joints_and_the_released_one_does_not():
    torch.manual_seed(0)
    here, there = torch.full((1, 3, 2), 20.0), torch.full((1, 3, 2), 200.0)
    visible = torch.tensor([[1.0, 1.0, 0.0]])
    paper = JointPrompt(PromptConfig(joints=3, width=8))
    assert (paper(here, visible)[:, 2] == paper(there, visible)[:, 2]).all()
    assert (paper(here, visible)[:, 0] != paper(there, visible)[:, 0]).any()
    released = JointPrompt(PromptConfig(joints=3, width=8, layers=1, visible_only=False))
    assert (released(here, visible)[:, 2] != released(there, visible)[:, 2]).any()


def test_prompt_layers_are_those_of_the_paper_and_of_the_code():
    count = lambda config: sum(p.numel() for p in JointPrompt(config).mlp.parameters())  # noqa: E731
    assert count(PromptConfig(width=768, layers=1)) == 2 * 768 + 768
    assert count(PromptConfig(width=768, layers=2)) == 2 * 768 + 768 + 768 * 768 + 768


def test_identity_distinguishes_joints_at_one_position():
    same = torch.full((1, 2, 2), 50.0)
    plain, named = PromptConfig(joints=2, width=8), PromptConfig(joints=2, width=8, identity=True)
    a, b = JointPrompt(plain)(same, torch.ones(1, 2))[0]
    assert torch.equal(a, b)
    a, b = JointPrompt(named)(same, torch.ones(1, 2))[0]
    assert not torch.equal(a, b)


def off_the_maps(finest: float) -> JointReadings:
    """finest: a factor on the map of 32 cells."""
    torch.manual_seed(0)
    reading = JointReading((8, 12, 16, 16), 4, joints=2, groups=4)
    sizes = ((16, 4), (16, 8), (12, 16), (8, 32))
    maps = [torch.randn(3, width, size, size) for width, size in sizes]
    return reading([*maps[:3], finest * maps[3]], torch.randn(3, 4, 32, 32))


def off_the_fused_map(factor: float) -> JointReadings:
    torch.manual_seed(0)
    reading = FusedReading(16, joints=2, groups=4, inner=8)
    return reading(factor * torch.randn(3, 16, 8, 8))


@pytest.mark.parametrize("read_with", [off_the_maps, off_the_fused_map])
def test_reading_is_the_mean_of_its_distribution(read_with: Callable[[float], JointReadings]):
    readings = read_with(1.0)
    assert readings.scores.shape == (3, 2, 32, 32) and readings.surface.shape == (3, PARTS + 2, 32, 32)
    assert not torch.allclose(readings.positions, read_with(0.0).positions)
    share = readings.scores.flatten(2).softmax(-1).unflatten(-1, (32, 32))
    cells = torch.arange(32.0) * 8
    torch.testing.assert_close(
        readings.positions[..., 0], (share.sum(-2) * cells).sum(-1), atol=1e-3, rtol=1e-4
    )
    torch.testing.assert_close(
        readings.positions[..., 1], (share.sum(-1) * cells).sum(-1), atol=1e-3, rtol=1e-4
    )
    assert ((readings.confidence > 0) & (readings.confidence <= 1)).all()
    nothing = readings.masked(torch.tensor([0.0, 1.0, 1.0]))
    assert not nothing.summary()[0].any()
    torch.testing.assert_close(nothing.summary()[1:], readings.summary()[1:])
