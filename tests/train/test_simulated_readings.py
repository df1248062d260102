"""The imagined reading: near the truth, seeded, absent as often as asked."""

import numpy as np
import torch

from dpmesh.body.files import population_body
from dpmesh.data.poses import PoseBank
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.train.dataloader import as_tensors
from dpmesh.train.objectives.simulated_readings import simulated_readings


def test_errors_have_the_measured_size():
    people = SyntheticPeople(3, PoseBank.load("train"), population_body())
    batch = as_tensors(people.keypoints_only(np.random.default_rng(0), 400))
    read = simulated_readings(batch, 5, absent=0.25)
    assert torch.equal(read, simulated_readings(batch, 5, absent=0.25))
    absent = ~read.flatten(1).any(1)
    assert 0.18 < absent.float().mean() < 0.32
    here = ~absent[:, None] & (batch["joint_visible"] > 0)
    off = (read[..., :2] * 256 - batch["joints2d"]).norm(dim=-1)[here]
    assert 4 < off.median() < 9  # pixels; measured: 5.7
    depth = batch["joints3d"][..., 2] - batch["joints3d"][:, :1, 2]
    wrong = (read[..., 2] - depth).abs()[here]
    assert 0.03 < wrong.median() < 0.12  # metres; measured: 0.083
