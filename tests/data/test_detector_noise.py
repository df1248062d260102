"""The model of the shipped detector's errors: its rates in a large sample, and where it is used."""

import numpy as np
import pytest

from dpmesh.body.files import population_body
from dpmesh.data.detector_noise import PHOTOGRAPHED, RENDERED, detected
from dpmesh.data.poses import PoseBank
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.errors import ConfigError
from dpmesh.skeletons import COCO17, COCO_SIGMAS
from dpmesh.train.config import Data, TrainingSource
from dpmesh.train.dataloader import training_people

N = 6000
AREA = 10.0**2
PLACES = np.stack([20.0 + np.arange(17) % 5 * 50, 20.0 + np.arange(17) // 5 * 60], 1)  # all far apart
BODY = np.arange(5, 17)
UNIT = np.array(COCO_SIGMAS) * np.sqrt(AREA)
FLIP = list(COCO17.flip)
OUTSIDE = [0, 3]
INSIDE = np.setdiff1d(np.arange(17), OUTSIDE)


def draw(share: float, hidden: bool = False, others: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Points and flags of N people who stand alike; the joints of OUTSIDE are outside the image."""
    inside = np.ones((N, 17), bool)
    inside[:, OUTSIDE] = False
    near = np.tile(PLACES + 10, (N, 1, 1, 1)).astype(np.float32)
    return detected(
        np.random.default_rng(0), np.tile(PLACES, (N, 1, 1)), inside, np.full((N, 17), hidden),
        np.full(N, AREA), near, np.full((N, 1, 17), float(others), np.float32), share,
    )  # fmt: skip


@pytest.mark.parametrize(("share", "reading"), [(1.0, PHOTOGRAPHED), (0.0, RENDERED)])
@pytest.mark.parametrize("hidden", [False, True])
def test_errors_have_the_sizes_of_the_rates(share: float, reading: object, hidden: bool) -> None:
    points, flags = draw(share, hidden)
    own = np.linalg.norm(points - PLACES, axis=-1) / UNIT
    partner = np.linalg.norm(points - PLACES[FLIP], axis=-1) / UNIT
    right = (flags > 0) & (own < partner) & np.isin(np.arange(17), BODY)
    expected = (PHOTOGRAPHED if reading is PHOTOGRAPHED else RENDERED).error[int(hidden)]
    # Those who are read well have more joints and smaller errors.
    assert 0.6 * expected < np.median(own[right]) < 1.05 * expected
    assert not flags[:, OUTSIDE].any() and not points[flags == 0].any()


def test_hidden_joints_are_given_less_often_and_a_persons_joints_together() -> None:
    for share, visible, most in ((1.0, 0.87, 0.2), (0.0, 0.53, 0.45)):
        given = draw(share)[1][:, INSIDE].mean(1)
        covered = draw(share, hidden=True)[1][:, INSIDE].mean(1)
        assert abs(given.mean() - visible) < 0.04 and covered.mean() < given.mean() - 0.12
        apart = np.sqrt(given.mean() * (1 - given.mean()) / 15)  # were joints given by chance
        assert 1.5 * apart < given.std() < most


def test_sides_are_exchanged_for_a_whole_person_or_legs() -> None:
    points, flags = draw(0.0)
    nearer = np.linalg.norm(points - PLACES[FLIP], axis=-1) < np.linalg.norm(points - PLACES, axis=-1)
    many = (flags[:, BODY] > 0).sum(1) >= 8
    share = (nearer & (flags > 0))[:, BODY].sum(1) / np.maximum((flags[:, BODY] > 0).sum(1), 1)
    assert abs((share[many] > 0.8).mean() - RENDERED.exchanged[0]) < 0.02
    assert (nearer[:, 11:].all(1) & ~nearer[:, 5:11].any(1) & flags[:, 5:].all(1)).any()


def test_joints_of_somebody_near() -> None:
    for others in (False, True):
        points, flags = draw(0.0, others=others)
        theirs = (np.linalg.norm(points - PLACES - 10, axis=-1) < 5) & (flags > 0)
        whole = (theirs | (flags == 0)).all(1) & (flags.sum(1) >= 5)
        assert (whole.sum() / (flags.sum(1) >= 5).sum() > 0.06) == others
        assert others or not theirs[:, BODY].any()


def test_both_streams_have_it() -> None:
    bank = PoseBank.load("train")
    people, before = (
        SyntheticPeople(7, bank, population_body(), detector_noise=share) for share in (1.0, 0.0)
    )
    nothing = [
        (one.keypoints_only(np.random.default_rng(0), 1000)["visible"] == 0).all(1).mean()
        for one in (people, before)
    ]
    assert nothing[0] > 0.05 > 0.01 > nothing[1]
    assert not np.array_equal(people.sample(1).joints, before.sample(1).joints)


@pytest.mark.slow
def test_the_setting_reaches_the_training() -> None:
    some, none = (training_people(Data(detector_noise=share), 7).sample(1).joints for share in (1.0, 0.0))
    assert not np.array_equal(some, none)


def test_settings_that_would_have_no_effect_are_refused() -> None:
    with pytest.raises(ConfigError, match="detector_noise"):
        Data(detector_noise=1.5)
    with pytest.raises(ConfigError, match="synthetic people"):
        Data(detector_noise=0.5, group2d=(TrainingSource(dataset="coco", root="data"),))
