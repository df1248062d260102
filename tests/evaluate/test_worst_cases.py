"""Images of the people with the largest errors."""

from collections.abc import Callable

import numpy as np

from dpmesh.evaluate.results import Rows, inputs_of
from dpmesh.evaluate.runner import evaluate
from dpmesh.evaluate.worst_cases import draw, worst_of


def test_worst_people_are_sorted_failures_first(make_rows: Callable[..., Rows]):
    values = np.array([10.0, 90.0, np.nan, 40.0])
    assert worst_of(make_rows(values), 3) == [2, 1, 3]


def test_a_sheet_moves_the_truth_to_the_prediction(twin, opened):
    """With the true mesh as the prediction the second and third panel cover the same pixels."""
    run = opened("3dpw", lambda name: twin.truth[name])
    persons = run.source.persons([0])
    persons.crops[:] = 70  # the crop has one colour

    prediction = run.model(inputs_of(persons, "crop", run.device))
    sheet = draw(run, persons, prediction, "a caption")
    side = sheet.shape[1] // 4
    assert sheet.shape == (side + 40, 4 * side, 3)
    keypoints, predicted, true, side_view = (
        sheet[40:, i * side : (i + 1) * side].astype(int) for i in range(4)
    )
    covers = [np.abs(panel - keypoints).max(-1) > 20 for panel in (predicted, true)]
    assert (covers[0] & covers[1]).sum() > 0.95 * (covers[0] | covers[1]).sum() > 500
    assert (np.abs(side_view - 70).max(-1) > 20).sum() > 500
    green = ((np.abs(keypoints - [80, 255, 120]).sum(-1)) < 60).sum()
    assert green > 20 * persons.visible[0].sum()
    assert evaluate(run, range(2)).mpjpe.max() < 1


def test_a_sheet_of_a_prediction_that_is_not_finite(twin, opened):
    run = opened("3dpw", lambda name: (np.full((6890, 3), np.nan), np.zeros(3)))
    persons = run.source.persons([0])
    sheet = draw(run, persons, run.model(inputs_of(persons, "crop", run.device)), "no finite prediction")
    assert (sheet[60:, sheet.shape[1] // 4 :] == 40).all()
    assert evaluate(run, range(3)).failed.all()
