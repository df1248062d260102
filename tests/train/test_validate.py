"""The people that a model is validated on."""

import numpy as np
import pytest

from dpmesh.data.poses import PoseBank
from dpmesh.train.config import Data
from dpmesh.train.dataloader import Tensors, pose_bank
from dpmesh.train.validate import held_out, validation_people


def _recorded(people: Tensors, bank: PoseBank) -> list[bool]:
    """Which of the people stand as a frame of the bank or its mirror image does; the root turns with the camera."""
    frames = bank.both_sides[:, 1:22]
    return [bool((np.abs(frames - pose[1:22]).max((1, 2)) < 1e-4).any()) for pose in people["pose"].numpy()]


def test_held_out_people_stand_as_the_test_clips_were_recorded_and_no_training_clip() -> None:
    people = held_out(4)
    assert all(_recorded(people, PoseBank.load("test")))
    assert not any(_recorded(people, PoseBank.load("train")))


@pytest.mark.parametrize(("motions", "theirs"), [("validation", True), ("train", False)])
def test_validation_people_stand_as_clips_that_training_leaves_out(motions: str, theirs: bool) -> None:
    people = validation_people(Data(), 4, 1)
    assert _recorded(people, pose_bank(motions)) == [theirs] * 4
