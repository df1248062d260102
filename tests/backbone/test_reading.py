"""Joint readings are means over the cells, exact to a fraction of a pixel even under autocast."""

import torch

from dpmesh.backbone.joint_reading import readings_from_maps
from dpmesh.geometry import CROP


def test_the_position_of_one_cell_and_of_two():
    joint_maps, surface = torch.full((1, 4, 32, 32), -100.0), torch.zeros(1, 26, 32, 32)
    joint_maps[0, 0, 5, 7] = joint_maps[0, 1, 5, 7] = joint_maps[0, 1, 9, 7] = 0.0
    joint_maps[0, 2:] = 0.0
    joint_maps[0, 2, 5, 7], joint_maps[0, 3, 5, 7], joint_maps[0, 3, 9, 7] = 0.3, 0.1, -0.3  # depths
    readings = readings_from_maps(joint_maps, surface)
    cell = CROP / 32
    expected = torch.tensor([[7 * cell, 5 * cell, 0.3], [7 * cell, 7 * cell, -0.1]])
    assert torch.allclose(readings.positions[0], expected, atol=1e-4)
    assert torch.allclose(readings.confidence[0], torch.tensor([1.0, 0.5]), atol=1e-4)


def test_autocast_does_not_round_the_positions():
    torch.manual_seed(0)
    joint_maps, surface = 3 * torch.randn(2, 60, 32, 32), torch.zeros(2, 26, 32, 32)
    whole = readings_from_maps(joint_maps, surface).positions
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(readings_from_maps(joint_maps, surface).positions, whole)
