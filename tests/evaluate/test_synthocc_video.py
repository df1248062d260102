"""SynthOcc's clips are frozen, their truth agrees with itself, and scores of known predictions are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpmesh.cli.main import main
from dpmesh.data.synthocc.bodies import People
from dpmesh.data.synthocc.clip_drawing import draw_clip
from dpmesh.data.synthocc.clips import CLIPS, PEOPLE, Clip, checksum, clip
from dpmesh.data.synthocc.motion import FEET, FPS, SOLE
from dpmesh.evaluate.clip_methods import TrueKeypoints, linked
from dpmesh.evaluate.clip_scores import TrackRows, clip_scores
from dpmesh.evaluate.registry import entry
from dpmesh.evaluate.synthocc_video import LABELS, PREFIX_LABELS

PILLAR = 1


@pytest.fixture(scope="module")
def people() -> People:
    return People()


@pytest.fixture(scope="module")
def pillar(people: People) -> Clip:
    return clip(people, PILLAR)


def rows_of(one: Clip) -> TrackRows:
    """The truth as a prediction."""
    count, length = one.joints.shape[:2]
    frame, track = np.tile(np.arange(length), count), np.repeat(np.arange(count), length)
    flat = one.joints.reshape(-1, 30, 3)
    return TrackRows(frame, track, flat, one.pixels(flat))


@pytest.mark.slow
def test_the_first_clips_are_the_frozen_ones(people: People, pillar: Clip) -> None:
    """All of them: python -m tools.fixtures.synthocc --clips 60."""
    assert checksum([clip(people, 0), pillar, clip(people, 2)]) == PREFIX_LABELS


def test_the_protocol_names_the_labels() -> None:
    for name in ("synthocc-video", "synthocc-video@annotated"):
        assert (
            LABELS in entry(name).protocol.selection.dataset
            and entry(name).protocol.persons == CLIPS * PEOPLE
        )


def test_one_clip_is_the_frozen_one(people: People, pillar: Clip) -> None:
    assert pillar.focal == FOCAL
    np.testing.assert_allclose(pillar.joints[:, 30, 0], ROOTS, atol=2e-4)
    first = next(draw_clip(people, pillar))
    assert first.shape == (288, 384, 3)
    np.testing.assert_allclose(first.mean((0, 1)), COLOUR, atol=0.2)


FOCAL = 514.0
ROOTS = np.array([[0.0471, 0.047, 5.2073], [1.0454, 0.0027, 5.2517]])
COLOUR = [129.25, 132.1, 145.04]


def test_the_truth_agrees_with_itself(pillar: Clip) -> None:
    ground, feet = pillar.ground, pillar.joints[:, :, FEET]
    above = (feet - ground.origin) @ ground.up - SOLE
    assert pillar.contacts.mean() > 0.2 and np.abs(above[pillar.contacts]).max() < 0.05
    steps = np.linalg.norm(np.diff(feet, axis=1), axis=-1) * FPS
    assert steps[pillar.contacts[:, 1:] & pillar.contacts[:, :-1]].max() < 0.13  # metres a second
    assert (pillar.shown[0] < 0.2).sum() > 5 and pillar.shown[
        1
    ].min() > 0.9  # behind the pillar, and beside it
    across = pillar.pixels(pillar.joints)[0, :, 0, 0]
    assert (np.diff(across)[::10] > 0).all()


def test_the_truth_scores_nothing(pillar: Clip) -> None:
    measure = entry("synthocc-video").protocol.measure
    got = clip_scores(measure, pillar, rows_of(pillar))
    for name in ("mpjpe", "pa_mpjpe", "acceleration", "missed", "switches", "idfn", "idfp"):
        np.testing.assert_allclose(got[name], 0, atol=1e-6, err_msg=name)
    assert got["recovery"][0] == 0 and np.isnan(got["recovery"][1]) and got["slide"].max() < 4.5


def test_another_name_after_the_pillar_is_a_switch(pillar: Clip) -> None:
    measure, rows = entry("synthocc-video").protocol.measure, rows_of(pillar)
    hidden = int(np.argmin(pillar.shown[0]))
    renamed = replace(rows, track=np.where((rows.track == 0) & (rows.frame > hidden), 9, rows.track))
    got = clip_scores(measure, pillar, renamed)
    assert got["switches"].tolist() == [1, 0] and got["idfn"][0] > 0 and got["idfn"][1] == 0
    assert got["recovery"][0] > 0.2  # the same name never comes back: what is left of the clip
    late = replace(rows, **{name: getattr(rows, name)[rows.track == 1] for name in vars(rows)})
    assert clip_scores(measure, pillar, late)["missed"].tolist() == [100, 0]


def test_a_tremor_of_ten_millimetres(pillar: Clip) -> None:
    """±5 mm of all joints but the root in turn: 20 mm a frame² beside the truth's own."""
    rows = rows_of(pillar)
    tremor = np.where(rows.frame % 2 == 0, 0.005, -0.005)[:, None, None] * np.array([1.0, 0, 0])
    moved = rows.joints3d + tremor * (np.arange(30) > 0)[:, None]
    got = clip_scores(entry("synthocc-video").protocol.measure, pillar, replace(rows, joints3d=moved))
    np.testing.assert_allclose(got["acceleration"], 0.020 * FPS**2, rtol=1e-6)


def test_boxes_link_people(pillar: Clip) -> None:
    rows = rows_of(pillar)
    order = np.random.default_rng(0).permutation(len(rows.frame))
    order = order[np.argsort(rows.frame[order], kind="stable")]
    nameless = TrackRows(rows.frame[order], 0 * rows.track, rows.joints3d[order], rows.joints2d[order])
    got = linked(nameless).track
    assert len({(a, b) for a, b in zip(got, rows.track[order], strict=True)}) == 2


def test_true_keypoints(pillar: Clip, people: People) -> None:
    image = next(draw_clip(people, pillar))
    detector = TrueKeypoints(pillar, [image])
    found = detector(image).people
    assert len(found) == (pillar.shown[:, 0] > 0.3).sum()
    for one in found:
        true = [pillar.pixels(points) for points in pillar.coco[:, 0]]
        off = min(np.abs(one.keypoints[:, :2] - points).max() for points in true)
        assert 0 < off < 15
    assert not detector(image + 1).people
    boxes = np.stack([found[-1].box, np.array([0.0, 0, 5, 5], np.float32)])
    in_boxes = detector.keypoints_in_boxes(image, boxes)
    np.testing.assert_array_equal(in_boxes[0].keypoints, found[-1].keypoints)
    assert not in_boxes[1].posed


@pytest.mark.parametrize(
    ("protocol", "method", "message"),
    [("synthocc-video", "fit", "not for clips"), ("synthocc", "gaussian", "not for single pictures")],
)
def test_methods_of_other_sets(
    tmp_path: Path, protocol: str, method: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "run", protocol, "--method", method, "--out", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
