"""Scores against a slow, obvious reference: loops, and an alignment computed by another library's solver."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dpmesh.evaluate.interfaces import Persons
from dpmesh.evaluate.protocol import Measure
from dpmesh.evaluate.registry import entry
from dpmesh.evaluate.report import figures
from dpmesh.evaluate.results import Predicted, Rows, score
from dpmesh.metrics import mean_of, pa_mpjpe, pck

MEASURE = entry("3dpw").protocol.measure
PANOPTIC = entry("panoptic-pizza").protocol.measure
RNG = np.random.default_rng(3)


def persons(n: int = 5, vertices: int = 40) -> Persons:
    zeros = np.zeros
    in_sight = RNG.integers(0, 2, (n, 17)).astype(float)
    in_sight[:, 10] = np.nan
    return Persons(
        ids=tuple(f"s{i % 2}/{i:05d}/0" for i in range(n)),
        sequences=tuple(f"s{i % 2}" for i in range(n)),
        crops=zeros((n, 256, 256, 3), np.uint8), joints=zeros((n, 30, 2), np.float32),
        visible=zeros((n, 30), np.float32), focal_crop=zeros(n, np.float32), focal_image=zeros(n, np.float32),
        turn=np.tile(np.eye(3), (n, 1, 1)), truth_joints=RNG.normal(size=(n, 17, 3)) + 3, measured=np.ones((n, 17)),
        truth_vertices=RNG.normal(size=(n, vertices, 3)).astype(np.float32), truth_pelvis=RNG.normal(size=(n, 3)),
        joint_visible=in_sight,
    )  # fmt: skip


def noisy_prediction(to: Persons, size: float = 0.1) -> Predicted:
    n, v = to.truth_vertices.shape[:2]
    joints = to.truth_joints + RNG.normal(0, size, (n, 17, 3)) + [1, 2, 3]
    vertices = to.truth_vertices + RNG.normal(0, size, (n, v, 3)).astype(np.float32)
    return Predicted(joints, vertices, to.truth_pelvis + RNG.normal(0, size, (n, 3)))


def slow(to: Persons, predictions: Predicted, i: int) -> tuple[float, float, float]:
    """MPJPE, PA-MPJPE, MPVE of one person, by their definitions."""
    wanted = [1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16]
    a = [predictions.joints[i][j] - predictions.joints[i][0] for j in wanted]
    b = [to.truth_joints[i][j] - to.truth_joints[i][0] for j in wanted]
    plain = sum(float(np.linalg.norm(p - q)) for p, q in zip(a, b, strict=True)) / 14
    am, bm = np.mean(a, 0), np.mean(b, 0)
    ca, cb = np.array(a) - am, np.array(b) - bm
    turn, _ = Rotation.align_vectors(cb, ca)  # Kabsch, no reflection
    turned = turn.apply(ca)
    scale = (turned * cb).sum() / (ca**2).sum()
    moved = scale * turned + bm
    aligned = sum(float(np.linalg.norm(p - q)) for p, q in zip(moved, b, strict=True)) / 14
    mesh = [
        float(
            np.linalg.norm(
                (predictions.vertices[i][k] - predictions.pelvis[i])
                - (to.truth_vertices[i][k] - to.truth_pelvis[i])
            )
        )
        for k in range(len(predictions.vertices[i]))
    ]
    return 1000 * plain, 1000 * aligned, 1000 * sum(mesh) / len(mesh)


def test_against_the_slow_reference():
    to = persons(40)
    predictions = noisy_prediction(to, 0.4)
    rows = score(MEASURE, range(40), to, predictions)
    for i in range(40):
        scored = rows.mpjpe[i], rows.pa_mpjpe[i], rows.mpve[i]
        assert scored == pytest.approx(slow(to, predictions, i), rel=1e-6)
    whole = figures(MEASURE, rows)
    assert whole["mean"]["MPJPE"]["mean"] == pytest.approx(
        np.mean([slow(to, predictions, i)[0] for i in range(40)])
    )
    assert whole["per_joint"]["L_Ankle"]["MPJPE"] == pytest.approx(rows.joint[:, 5].mean())
    assert list(whole["per_joint"])[:3] == ["R_Hip", "R_Knee", "R_Ankle"]


def test_a_batch_is_its_persons():
    to = persons(4)
    predictions = noisy_prediction(to)
    whole = score(MEASURE, range(4), to, predictions)
    for i in range(4):
        cut = {n: v[i : i + 1] for n, v in vars(to).items() if isinstance(v, (np.ndarray, tuple))}
        one = Predicted(
            predictions.joints[i : i + 1], predictions.vertices[i : i + 1], predictions.pelvis[i : i + 1]
        )
        alone = score(MEASURE, [i], Persons(**cut), one)
        scored = alone.mpjpe[0], alone.pa_mpjpe[0], alone.mpve[0]
        assert scored == pytest.approx((whole.mpjpe[i], whole.pa_mpjpe[i], whole.mpve[i]), rel=1e-12)


@pytest.mark.parametrize("where", ["joints", "vertices"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_failure_is_counted_and_changes_no_other_person(where: str, value: float):
    to = persons(6)
    predictions = noisy_prediction(to)
    clean = score(MEASURE, range(6), to, predictions)
    getattr(predictions, where)[2, 5, 1] = value
    rows = score(MEASURE, range(6), to, predictions)
    assert rows.failed.tolist() == [False, False, True, False, False, False]
    others = [0, 1, 3, 4, 5]
    for name in ("mpjpe", "pa_mpjpe", "mpve"):
        assert np.isnan(getattr(rows, name)[2])
        np.testing.assert_array_equal(getattr(rows, name)[others], getattr(clean, name)[others])
    whole = figures(MEASURE, rows)
    for name in ("MPJPE", "PA-MPJPE", "MPVE"):
        assert (whole["mean"][name]["count"], whole["mean"][name]["failures"]) == (5, 1)
    assert whole["mean"]["MPJPE"]["mean"] == pytest.approx(clean.mpjpe[others].mean())
    assert whole["failures"] == 1 and whole["by_sequence"]["s0"]["failures"] == 1
    for name in ("MPJPE", "PA-MPJPE"):  # its 14 joints count as missed at every threshold
        assert whole["pck"][name]["shares"][-1] <= 5 / 6 + 1e-6


def test_all_failed_is_no_zero():
    to = persons(2)
    predictions = noisy_prediction(to)
    predictions.joints[:] = np.nan
    whole = figures(MEASURE, score(MEASURE, range(2), to, predictions))
    assert whole["mean"]["MPJPE"] == {"mean": None, "median": None, "count": 0, "failures": 2}


def test_unmeasured_joints_add_nothing_and_still_count():
    to = persons(2)
    to.measured[0, [3, 7]] = 0
    predictions = noisy_prediction(to)
    rows = score(PANOPTIC, range(2), to, predictions)
    for i in range(2):
        off = (predictions.joints[i] - predictions.joints[i, 0]) - (
            to.truth_joints[i] - to.truth_joints[i, 0]
        )
        each = 1000 * np.linalg.norm(off, axis=1) * to.measured[i]
        assert rows.mpjpe[i] == pytest.approx(each.sum() / 17)
    assert np.isnan(rows.joint[0, [3, 7]]).all()
    curve = figures(PANOPTIC, rows)["pck"]["MPJPE"]["shares"]
    known = rows.joint[np.isfinite(rows.joint)]
    assert known.size == 32 and curve[10] == pytest.approx((known <= 100).mean(), abs=1e-6)


def test_visible_and_hidden_are_apart():
    to = persons(30)
    rows = score(MEASURE, range(30), to, noisy_prediction(to))
    joint = np.where(rows.joint_visible == 1, 10.0, 90.0)
    split = figures(MEASURE, replace(rows, joint=joint, joint_pa=joint))["by_sight"]
    assert (split["visible"]["MPJPE"], split["hidden"]["MPJPE"]) == (10.0, 90.0)
    assert split["unknown"]["joints"] == 30  # Head_top, which no detector reports
    assert sum(part["joints"] for part in split.values()) == 30 * 14


def test_sequences_are_apart():
    to = persons(6)
    rows = score(MEASURE, range(6), to, noisy_prediction(to))
    by = figures(MEASURE, rows)["by_sequence"]
    assert list(by) == ["s0", "s1"] and by["s1"]["persons"] == 3
    assert by["s1"]["MPJPE"] == pytest.approx(rows.mpjpe[1::2].mean())


# Closed forms of the alignment


def test_a_known_similarity_is_nothing_and_a_mirror_is_something():
    truth = RNG.normal(size=(3, 14, 3))
    turn = Rotation.from_rotvec([0.3, -1.2, 2.0])
    moved = np.stack([0.4 * turn.apply(p) + [5, -3, 9] for p in truth])
    np.testing.assert_allclose(pa_mpjpe(moved, truth), 0, atol=1e-9)
    assert pa_mpjpe(truth * [1, 1, -1], truth).min() > 50


def test_collinear_points_are_aligned_like_others():
    line = np.linspace(-1, 1, 14)[:, None] * [[0.0, 1.0, 0.0]]
    other = 3 * np.linspace(-1, 1, 14)[:, None] * [[0.6, 0.0, 0.8]] + [1, 1, 1]
    np.testing.assert_allclose(pa_mpjpe(other[None], line[None]), 0, atol=1e-9)
    bent = line + RNG.normal(0, 0.1, line.shape)
    one = pa_mpjpe(line[None], bent[None])[0]
    assert 0 < one < 1000 * np.linalg.norm(bent - line, axis=1).mean() + 1e-9


def test_coincident_points_cost_the_spread_of_the_truth():
    truth = RNG.normal(size=(1, 14, 3))
    spread = 1000 * np.linalg.norm(truth - truth.mean(1, keepdims=True), axis=-1).mean()
    assert pa_mpjpe(np.full_like(truth, 7.0), truth)[0] == pytest.approx(spread)
    np.testing.assert_allclose(pa_mpjpe(truth, np.zeros_like(truth)), 0, atol=1e-9)  # shrunk onto one point


def test_a_bad_set_leaves_the_others_alone():
    truth = RNG.normal(size=(4, 14, 3))
    predictions = truth + RNG.normal(0, 0.1, truth.shape)
    clean = pa_mpjpe(predictions, truth)
    predictions[1, 3, 0], predictions[2] = np.nan, 1e200
    errors = pa_mpjpe(predictions, truth)
    assert np.isnan(errors[1:3]).all()
    np.testing.assert_array_equal(errors[[0, 3]], clean[[0, 3]])


def test_pck_counts_at_the_threshold_and_misses_failures():
    errors = np.array([[10.0, 50.0], [np.nan, np.nan]])
    assert pck(errors, np.array([0.0, 9.9, 10.0, 50.0, 1e9])).tolist() == [0, 0, 0.25, 0.5, 0.5]
    assert np.isnan(pck(np.zeros((0, 2)), np.array([10.0]))).all()


def test_a_mean_has_its_count_and_failures():
    assert vars(mean_of(np.array([1.0, 3.0, np.nan, np.inf]))) == {
        "mean": 2.0,
        "median": 2.0,
        "count": 2,
        "failures": 2,
    }


def test_measures_that_a_protocol_lacks_are_not_failures():
    to = persons(3)
    rows = score(Measure(metrics=("MPJPE",)), range(3), to, noisy_prediction(to))
    assert isinstance(rows, Rows) and not rows.failed.any()
    assert np.isnan(rows.pa_mpjpe).all() and np.isnan(rows.mpve).all()
    assert set(figures(Measure(metrics=("MPJPE",)), rows)["mean"]) == {"MPJPE"}


def test_a_record_at_fault_is_no_failure_and_in_no_figure():
    """In its ground truth or in the model's input, whatever the prediction."""
    who = persons(6)
    predictions = noisy_prediction(who, 0.01)
    clean = figures(MEASURE, score(MEASURE, range(6), who, predictions))
    who.truth_joints[1, 3] = np.nan
    who.truth_vertices[2, 7] = np.inf
    who.joints[3, 0] = np.nan
    predictions.joints[3] = np.nan
    predictions.vertices[5, 0] = np.nan  # the model's own
    rows = score(MEASURE, range(6), who, predictions)
    assert list(np.flatnonzero(rows.unusable)) == [1, 2, 3] and list(np.flatnonzero(rows.failed)) == [5]
    result = figures(MEASURE, rows)
    for name in MEASURE.metrics:
        assert result["mean"][name]["count"] == 2 and result["mean"][name]["failures"] == 1
        left = getattr(
            score(MEASURE, [0, 4], take(who, [0, 4]), picked(predictions, [0, 4])), ATTRIBUTES[name]
        )
        assert result["mean"][name]["mean"] == pytest.approx(left.mean())
    assert result["failures"] == 1 and result["pck"]["MPJPE"]["shares"][-1] == pytest.approx(2 / 3, abs=1e-6)
    assert clean["mean"]["MPJPE"]["count"] == 6


def test_nothing_but_records_at_fault_has_no_figure():
    who = persons(2)
    who.truth_joints[:] = np.nan
    result = figures(MEASURE, score(MEASURE, range(2), who, noisy_prediction(persons(2))))
    assert result["mean"]["MPJPE"] == {"mean": None, "median": None, "count": 0, "failures": 0}
    assert result["pck"]["MPJPE"]["auc"] is None and result["failures"] == 0


def test_a_joint_that_was_not_measured_may_be_anything():
    who = persons(3)
    who.measured[1, 4] = 0
    plain = score(PANOPTIC, range(3), who, predictions := noisy_prediction(who))
    who.truth_joints[1, 4] = np.nan
    rows = score(PANOPTIC, range(3), who, predictions)
    assert not rows.unusable.any()
    np.testing.assert_array_equal(rows.mpjpe, plain.mpjpe)


def test_a_prediction_too_far_away_for_a_distance_is_a_failure():
    who = persons(2)
    predictions = noisy_prediction(who)
    predictions.joints[0, 1] = 1e200
    rows = score(MEASURE, range(2), who, predictions)
    assert list(rows.failed) == [True, False] and not rows.unusable.any()


ATTRIBUTES = {"MPJPE": "mpjpe", "PA-MPJPE": "pa_mpjpe", "MPVE": "mpve"}


def take(who: Persons, at: list[int]) -> Persons:
    cut = {name: value[at] for name, value in vars(who).items() if isinstance(value, np.ndarray)}
    return replace(
        who, ids=tuple(who.ids[i] for i in at), sequences=tuple(who.sequences[i] for i in at), **cut
    )


def picked(predictions: Predicted, at: list[int]) -> Predicted:
    return Predicted(predictions.joints[at], predictions.vertices[at], predictions.pelvis[at])
