"""Every set in its real layout, from the file to the figure. The truth is recomputed here from the made-up world."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dpmesh.evaluate.registry import open_source
from dpmesh.evaluate.results import NO_MPVE
from dpmesh.evaluate.runner import evaluate
from dpmesh.evaluate.sources import NO_KEYPOINTS, SHRUNK, DiskSource
from dpmesh.inference.detector import Detector
from dpmesh.skeletons import COCO17, H36M17, JOINTS30, convert
from tools.fixtures.evaluation_twin_people import project

CAFE = [f"downtown_cafe_00/{f:05d}/{p}" for f in range(5) for p in range(2)]
FENCING = [f"outdoors_fencing_01/{f:05d}/0" for f in range(3)]
BACKPACK = [f"courtyard_backpack_00/{f:05d}/0" for f in range(2)]
HUG = [f"courtyard_hug_00/{f:05d}/{p}" for f in range(98, 104) for p in range(2)]
NO_CAMERA, UNDETECTED, BEHIND = CAFE[2], CAFE[5], CAFE[7]
CHOSEN = {
    "3dpw": [i for i in CAFE + FENCING if i not in (NO_CAMERA, BEHIND)],
    "3dpw-oc": BACKPACK + FENCING,
    "3dpw-pc": [i for i in HUG if i >= "courtyard_hug_00/00100"],
    "3dpw-crowd": HUG,
}
LEFT_OUT = {
    "3dpw": {"campose_valid is 0": 1, "no joint inside the picture": 1},
    "3dpw-pc": {"campose_valid is 0": 0},
}


def truth(twin):
    return lambda name: twin.truth[name]


def records(name: str, data: Path) -> DiskSource:
    source = open_source(name, data)
    assert isinstance(source, DiskSource)
    return source


@pytest.mark.parametrize("layout", ["json", "official"])
@pytest.mark.parametrize("name", ["3dpw", "3dpw-oc", "3dpw-pc", "3dpw-crowd@as-run"])
def test_exactly_the_right_persons(twin, official, name: str, layout: str):
    source = records(name, twin.data if layout == "json" else official)
    assert [r.id for r in source.records] == CHOSEN[name.partition("@")[0]]
    census = source.census
    assert census.persons == len(source) and census.published and census.published > 1000
    assert len(census.files) >= 1 and all(len(digest) == 64 for digest in census.files.values())
    if layout == "official" and name == "3dpw":
        assert census.left_out == LEFT_OUT[name]


def test_both_layouts_of_3dpw_give_the_same_records(twin, official):
    one, two = records("3dpw", twin.data), records("3dpw", official)
    for a, b in zip(one.records, two.records, strict=True):
        assert (a.id, a.image.name, a.size, a.truth.gender) == (
            b.id,
            b.image.name,
            b.size,
            b.truth.gender,
        )
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-4)
        np.testing.assert_allclose(a.box, b.box, atol=1e-3)
        turned = Rotation.from_rotvec(a.truth.pose).inv() * Rotation.from_rotvec(b.truth.pose)
        assert turned.magnitude().max() < 1e-6
        np.testing.assert_array_equal(a.truth.betas, b.truth.betas)
        np.testing.assert_allclose(
            one.bodies.translation(a.truth), two.bodies.translation(b.truth), atol=1e-5
        )
        np.testing.assert_allclose(a.K, b.K, rtol=1e-6)


@pytest.mark.parametrize("camera", ["crop", "image"])
@pytest.mark.parametrize("layout", ["json", "official"])
def test_the_true_mesh_scores_zero(twin, official, opened, camera: str, layout: str):
    """World and camera frames, genders, units, the crop's turn, all at once."""
    run = opened("3dpw", truth(twin), twin.data if layout == "json" else official, camera, batch=4)
    rows = evaluate(run, range(run.count))
    assert list(rows.ids) == CHOSEN["3dpw"]
    for values in (rows.mpjpe, rows.pa_mpjpe, rows.mpve):
        assert values.max() < 5e-3  # float32 at 4 m
    assert rows.fallbacks == {"box: the annotated one": 1, NO_KEYPOINTS: 1}


def test_a_centimetre_is_ten_millimetres(twin, opened):
    """Every vertex away from the pelvis: metres taken for millimetres, or a root not subtracted, would show."""
    out = np.array([0.006, 0.0, 0.008])

    def moved(name: str):
        vertices, origin = twin.truth[name]
        return vertices + out, origin

    run = opened("3dpw", moved, batch=4)
    assert evaluate(run, range(4)).mpjpe.max() < 0.01  # the whole mesh moved: its root with it
    joints30, h36m17 = (run.model.arrays.regressors[name] for name in ("joints30", "h36m17"))
    near = (joints30[0] != 0) | (h36m17[0] != 0)

    def pelvis_stays(name: str):
        vertices, origin = twin.truth[name]
        return np.where(near[:, None], vertices, vertices + out), origin

    result = evaluate(run := opened("3dpw", pelvis_stays, batch=4), range(4))
    own = (h36m17 * (h36m17[0] == 0)).sum(1)
    wanted = 10 * own[list(run.protocol.measure.rows)]
    np.testing.assert_allclose(result.joint, np.broadcast_to(wanted, result.joint.shape), atol=0.02)


def test_the_wrong_gender_shows(twin, opened, official, tmp_path: Path):
    data = json.loads((twin.data / "3DPW" / "3DPW_latest_test.json").read_text())
    for row in data["annotations"]:
        row["smpl_param"]["gender"] = {"male": "female", "female": "male"}[row["smpl_param"]["gender"]]
    folder = tmp_path / "swapped" / "3DPW"
    folder.mkdir(parents=True)
    (folder / "3DPW_latest_test.json").write_text(json.dumps(data))
    (folder / "imageFiles").symlink_to(twin.data / "3DPW" / "imageFiles")
    rows = evaluate(opened("3dpw", truth(twin), tmp_path / "swapped"), range(4))
    assert rows.mpjpe.min() > 15 and rows.mpve.min() > 15


def test_a_mirrored_body_shows(twin, opened):
    """Left and right exchanged: the same points, other names."""

    def mirrored(name: str):
        vertices, origin = twin.truth[name]
        return (vertices - origin) * [-1, 1, 1] + origin, origin

    rows = evaluate(opened("3dpw", mirrored), range(4))
    assert rows.mpjpe.min() > 100 and rows.pa_mpjpe.min() > 50


def test_as_run_regresses_the_truth_at_its_distance(twin, opened, official):
    """The regressor's rows do not sum to 1: the true joints leak towards the camera, the predicted ones do not."""
    name = CHOSEN["3dpw"][0]
    h36m = twin.world.h36m
    for data in (twin.data, official):
        rows = evaluate(opened("3dpw@as-run", truth(twin), data), range(2))
        vertices, origin = twin.truth[name]
        m = twin.sequences[0].persons[0][0]
        J0, R = (
            twin.world.pose("neutral", np.zeros(72), m.betas)[2][0],
            twin.sequences[0].cam_poses[0, :3, :3],
        )
        placed = vertices + (R @ J0 - J0)  # how the files' transl is derived, from the neutral body's pelvis
        leaked, plain = (h36m @ mesh for mesh in (placed, vertices - origin))
        off = (leaked - leaked[0]) - (plain - plain[0])
        wanted = 1000 * np.linalg.norm(off, axis=1)[[*range(1, 7), 8, *range(10, 17)]]
        np.testing.assert_allclose(rows.joint[0], wanted, atol=0.02)
        assert 0.1 < rows.mpjpe[0] < 2


def test_crowd_takes_higherhrnet_where_it_is_meant(twin):
    paper, as_run = records("3dpw-crowd", twin.data), records("3dpw-crowd@as-run", twin.data)
    crowd = json.loads((twin.data / "3DPW" / "3DPW_validation_crowd_hhrnet_result.json").read_text())
    coco = convert(np.array(crowd["500"]["coco_joints"]), COCO17, JOINTS30)
    np.testing.assert_allclose(paper.records[0].keypoints, coco, atol=1e-5)
    np.testing.assert_array_equal(paper.records[1].keypoints, as_run.records[1].keypoints)  # 501 has no match
    assert np.abs(paper.records[0].keypoints - as_run.records[0].keypoints).max() > 0.05
    assert paper.census.left_out == {"no HigherHRNet pose matched: OpenPose's taken": 1}


def test_both_layouts_of_3doh(twin, opened, tmp_path: Path):
    """The official root is in the world's frame, its trans and scale are seven times too large."""
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "3DOH50K").symlink_to(twin.data / "3DOH50K")

    def predict(name: str):
        return twin.doh[name], np.array([0.0, 0.0, 3.0])

    for name, data in (("3doh", twin.data), ("3doh@detector", tmp_path / "o")):
        rows = evaluate(run := opened(name, predict, data), range(3))
        assert list(rows.ids) == ["00000", "00001", "00002"]
        assert rows.mpve.max() < 2e-3
        assert rows.pa_mpjpe.max() < 2  # the predicted mesh is not at its rest frame's origin: the rows leak
        assert run.source.census.layout != "" and run.source.census.published == 1290
    rows = evaluate(opened("3doh", predict), range(3))
    assert rows.fallbacks == {"box: the annotated one": 1, NO_KEYPOINTS: 1}  # the second has no detection


def test_panoptic(twin, opened):
    """The skeleton's order (left leg first), metres, unmeasured wrists, and images twice as large as annotated."""
    joints = twin.panoptic

    def predict(name: str):
        return np.repeat(joints[name][:1], 6890, 0), np.zeros(3)

    run = opened("panoptic-haggling@annotated", predict)
    assert len(run.source) == 4
    rows = evaluate(run, range(4))
    for i, name in enumerate(rows.ids):
        off = np.linalg.norm(joints[name] - joints[name][0], axis=1) * 1000
        off[[H36M17.index("L_Wrist"), H36M17.index("R_Wrist")]] *= (
            i % 2
        )  # of the first person not measured: adds 0
        assert rows.mpjpe[i] == pytest.approx(off.sum() / 17, abs=2.0)  # the prediction's own rows leak
        assert np.isnan(rows.joint[i]).sum() == (0 if i % 2 else 2)
    assert np.isnan(rows.mpve).all() and np.isnan(rows.pa_mpjpe).all()
    assert rows.fallbacks[SHRUNK] == 4
    persons = run.source.persons([1])
    projected = project(joints[rows.ids[1]])  # of the image on disk
    at = [JOINTS30.index(joint) for joint in ("L_Knee", "R_Wrist", "Head_top")]
    wanted = projected[[H36M17.index(JOINTS30.joints[i]) for i in at]]
    crop = run.source.source.persons([1])
    assert crop.ids == persons.ids
    scale = np.linalg.norm(persons.joints[0, at[0]] - persons.joints[0, at[1]]) / np.linalg.norm(
        wanted[0] - wanted[1]
    )
    offset = persons.joints[0, at] - scale * wanted
    np.testing.assert_allclose(offset, np.broadcast_to(offset[:1], offset.shape), atol=0.05)
    np.testing.assert_array_equal(persons.measured[0], 1)
    np.testing.assert_allclose(persons.truth_joints[0], joints[rows.ids[1]], atol=1e-9)


def test_panoptic_detects_keypoints_inside_the_annotated_box(twin, opened, monkeypatch):
    calls: list[tuple[int, np.ndarray]] = []
    detect = Detector.keypoints_in_boxes

    def recorded(self: Detector, image: np.ndarray, boxes: np.ndarray):
        assert (boxes >= 0).all() and (boxes[:, 2:] <= image.shape[1::-1]).all()
        calls.append((image.shape[0], boxes[0]))
        return detect(self, image, boxes)

    monkeypatch.setattr(Detector, "keypoints_in_boxes", recorded)
    run = opened("panoptic-haggling", lambda name: (np.zeros((6890, 3)), np.zeros(3)))
    rows = evaluate(run, range(2))
    assert np.isfinite(rows.mpjpe).all() and len(rows) == len(calls) == 2
    for (height, box), record in zip(calls, run.source.source.records[:2], strict=True):
        np.testing.assert_allclose(box, record.box * (height / record.size[0]), rtol=1e-5)


def test_another_mesh_has_no_mpve_and_a_counted_fallback(twin, opened, tmp_path: Path):
    from dpmesh.assets import shipped

    run = opened("3dpw", lambda name: (np.random.default_rng(1).normal(size=(6904, 3)), np.zeros(3)),
                 body=shipped("body/free_body.npz"))  # fmt: skip
    rows = evaluate(run, range(2))
    assert np.isnan(rows.mpve).all() and np.isfinite(rows.mpjpe).all() and not rows.failed.any()
    assert rows.fallbacks[NO_MPVE] == 2
