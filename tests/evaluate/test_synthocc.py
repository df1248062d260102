"""SynthOcc is frozen: its labels by checksum, its images by thumbnails; and its labels agree with the images."""

import ast
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import dpmesh.data.synthocc as room
import dpmesh.evaluate.synthocc as source_module
from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.data.poses import PoseBank, is_test
from dpmesh.data.synthocc.bodies import People
from dpmesh.data.synthocc.drawing import draw_case
from dpmesh.data.synthocc.draws import Draws
from dpmesh.data.synthocc.labels import Label, checksum, label
from dpmesh.data.synthocc.scenes import CASES, MAIN, RANGES, SUBSETS, SynthOccScene, case
from dpmesh.errors import InputError
from dpmesh.evaluate.interfaces import EvaluationSource
from dpmesh.evaluate.registry import entry, open_source
from dpmesh.evaluate.synthocc import LABELS, PERSONS, PREFIX_LABELS, SynthOcc
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.skeletons import H36M17, JOINTS30

PREFIX, DRAWN = 8, 4  # cases
THUMBNAILS = Path(__file__).parent / "synthocc_thumbnails.json"
"""Of the first four cases' levels 0 and 3: mean grey levels of 32×32 px blocks; written by the test itself when
the file is missing, which fails once."""
ROOM = Path(room.__file__).parent


@pytest.fixture(scope="module")
def people() -> People:
    return People()


@pytest.fixture(scope="module")
def cases(people: People) -> list[list[SynthOccScene]]:
    return [case(people, number) for number in range(PREFIX)]


@pytest.fixture(scope="module")
def labels(people: People, cases: list[list[SynthOccScene]]) -> list[list[Label]]:
    return [[label(people, scene) for scene in scenes] for scenes in cases]


@pytest.fixture(scope="module")
def images(people: People, cases: list[list[SynthOccScene]]) -> list[np.ndarray]:
    return [draw_case(people, scenes) for scenes in cases[:DRAWN]]


def test_the_stream_of_numbers_is_the_frozen_one() -> None:
    assert Draws(3, 1).unit(3).tolist() == [pytest.approx(v, abs=1e-15) for v in STREAM]
    assert Draws(3, 1).unit(3).tolist() != Draws(3, 2).unit(3).tolist()
    normal = Draws(0).normal(20_000)
    assert abs(normal.mean()) < 0.03 and abs(normal.std() - 1) < 0.02


STREAM = (0.9266312007191388, 0.009469951736987392, 0.48252729624045776)


def test_the_labels_of_the_first_cases_are_the_frozen_ones(labels: list[list[Label]]) -> None:
    """The whole set's checksum takes minutes: tools/fixtures/synthocc.py compares it with the protocol's."""
    assert checksum(one for rows in labels for one in rows) == PREFIX_LABELS
    assert LABELS in entry("synthocc").protocol.selection.dataset and len(LABELS) == 64


def test_the_images_are_the_frozen_ones(images: list[np.ndarray]) -> None:
    thumbnails = [p[level].reshape(8, 32, 8, 32, 3).mean((1, 3)) for p in images for level in (0, 3)]
    if not THUMBNAILS.is_file():
        rounded = [np.rint(one * 10).astype(int).reshape(-1).tolist() for one in thumbnails]
        THUMBNAILS.write_text(
            "[\n" + ",\n".join(json.dumps(one, separators=(",", ":")) for one in rounded) + "\n]\n"
        )
        pytest.fail("there were no thumbnails; they are written: check the images, then commit the file")
    frozen = np.array(json.loads(THUMBNAILS.read_text())) / 10
    assert np.abs(np.stack(thumbnails).reshape(len(thumbnails), -1) - frozen).max() <= 1.05


def test_the_composer_depends_on_nothing_that_is_worked_on() -> None:
    """Of the data engine it uses the noise model and the pose bank, which the checksum pins, and nothing else."""
    used: set[str] = set()
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                used.add(node.module)
    engine = {name for name in used if name.startswith(("dpmesh.data", "dpmesh.train"))}
    shared = {name for name in engine if not name.startswith("dpmesh.data.synthocc")}
    assert shared == {"dpmesh.data.noise", "dpmesh.data.poses"}


def test_motions_are_held_out(people: People) -> None:
    bank = PoseBank.load("test")
    assert all(is_test(name) for name in bank.names) and len(people.bank) == 2 * len(bank)


def test_every_subset_has_every_level(cases: list[list[SynthOccScene]]) -> None:
    assert (
        len({scenes[0].subset for scenes in cases}) == len(SUBSETS) and PERSONS == CASES * len(RANGES) >= 5000
    )
    for scenes in cases:
        assert [scene.level for scene in scenes] == list(range(len(RANGES)))
        for scene, (low, high) in zip(scenes, RANGES, strict=True):
            assert scene.hidden is not None and low <= scene.hidden[MAIN].sum() <= high
            assert np.array_equal(scene.person.figure.pose, scenes[0].person.figure.pose)
        if scenes[0].subset == "crowd":
            assert all(len(scene.others) >= 2 for scene in scenes[1:])
    assert MAIN.sum() == 17


def test_pixels_change_at_hidden_joints_and_nowhere_else(
    cases: list[list[SynthOccScene]], labels: list[list[Label]], images: list[np.ndarray]
) -> None:
    """From the pixels alone: around a joint the image equals the clean one unless the joint is occluded."""
    hidden_differs, open_differs = [], []
    for scenes, rows, shown in zip(cases, labels, images, strict=False):
        if scenes[0].subset == "truncation":
            for one, image in zip(rows, shown, strict=True):
                x1, y1, x2, y2 = one.frame.astype(int)
                outside = image.copy()
                outside[y1:y2, x1:x2] = 0
                assert not outside.any() and image[y1:y2, x1:x2].std() > 3
            continue
        for one, image in zip(rows[1:], shown[1:], strict=True):
            for joint in np.flatnonzero(MAIN):
                x, y = np.rint(one.joints2d[joint]).astype(int)
                off = np.abs(image[y, x].astype(int) - shown[0][y, x].astype(int)).mean()
                (hidden_differs if one.hidden[joint] else open_differs).append(off > 3)
    assert len(hidden_differs) > 100 and np.mean(hidden_differs) > 0.95
    assert len(open_differs) > 100 and np.mean(open_differs) < 0.1  # blurred: a joint next to an edge


def test_labels_agree_with_each_other_and_with_the_body(labels: list[list[Label]]) -> None:
    body = BodyModel(free_body())
    for one in (rows[level] for rows in labels for level in (0, 4)):
        pose, betas, transl = (torch.from_numpy(a)[None].float() for a in (one.pose, one.betas, one.transl))
        joints = body.joints30_only(betas, rotation_matrix(pose), transl)[0].numpy()
        assert np.abs(joints - one.joints3d).max() < 2e-4
        pixels = one.joints3d[:, :2] / one.joints3d[:, 2:] * one.focal + 128
        assert np.abs(pixels - one.joints2d).max() < 0.2
        assert not (one.visible & one.hidden).any() and not one.points[~one.detected].any()
        x1, y1, x2, y2 = one.box
        inside = (one.joints2d >= [x1, y1]).all(1) & (one.joints2d <= [x2, y2]).all(1)
        assert inside[~one.hidden].all()
    head, feet = JOINTS30.index("Head_top"), JOINTS30.index("L_Ankle")
    assert np.mean([rows[0].joints2d[head, 1] < rows[0].joints2d[feet, 1] for rows in labels]) > 0.9


def test_the_noise_is_a_detectors(labels: list[list[Label]]) -> None:
    clean = [rows[0] for rows in labels]
    off = np.concatenate(
        [np.linalg.norm(one.points - one.joints2d, axis=1)[one.detected & one.visible] for one in clean]
    )
    assert 1 < np.median(off) < 10
    detected = [np.mean([rows[level].detected[MAIN].mean() for rows in labels]) for level in (0, 5)]
    assert detected[0] > 0.75 and detected[1] < detected[0] - 0.2


def test_the_source_gives_persons(
    tmp_path: Path, labels: list[list[Label]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source("synthocc", tmp_path)
    assert (
        isinstance(source, SynthOcc)
        and isinstance(source, EvaluationSource)
        and len(source) == PERSONS == source.census.persons
    )
    persons = source.persons([0, 5, 7])
    assert persons.sequences == ("clean 0", "object 5", "person 1")
    assert persons.ids == tuple(labels[k][level].id for k, level in ((0, 0), (0, 5), (1, 1)))
    assert np.array_equal(persons.joints[1], labels[0][5].points.astype(np.float32))
    assert np.abs(persons.truth_pelvis[0] + labels[0][0].transl - labels[0][0].joints3d[0]).max() < 1e-4
    assert persons.truth_vertices is not None and persons.truth_vertices.shape[1] == 6904
    assert persons.joint_visible[0].mean() > persons.joint_visible[1].mean()
    at = np.array(H36M17.indices_in(JOINTS30))
    assert np.array_equal(
        persons.joint_visible[1], labels[0][5].visible[at].astype(float)
    )  # in sight, not: detected

    def refuse(*_: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(source_module, "draw_case", refuse)
    again = open_source("synthocc@detector", tmp_path).persons([0, 7])  # the same images, from the cache
    assert np.array_equal(again.crops, persons.crops[[0, 2]])
    visible = again.visible[0] > 0
    off = np.linalg.norm(again.joints[0] - labels[0][0].joints2d, axis=1)[visible]
    assert visible.sum() > 8 and np.median(off) < 10
    with pytest.raises(AssertionError, match="drawn again"):
        open_source("synthocc", None).persons([0])


def test_detected_keypoints_are_visible_above_the_threshold_and_inside_the_frame(
    labels: list[list[Label]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, one = open_source("synthocc@detector", None), labels[0][1]
    assert not source.detector.rotated_detection  # added after the set was frozen
    assert isinstance(source, SynthOcc)
    one = replace(one, frame=np.array([0.0, 0, 100, 256]))
    detected = np.zeros((30, 3), np.float32)
    detected[:, :2], detected[:, 2] = 60, 0.9
    detected[0, 0], detected[1, 0], detected[2, 2], detected[3, 2] = 99.5, 98.5, 0.19, 0.21

    class FixedDetector:
        def keypoints_in_boxes(self, image: np.ndarray, boxes: np.ndarray) -> list[SimpleNamespace]:
            assert np.array_equal(boxes, one.box[None].astype(np.float32))
            return [SimpleNamespace(keypoints30=detected)]

    source.detector = FixedDetector()  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(source_module, "label", lambda *_: one)
    monkeypatch.setattr(source_module, "draw_case", lambda *_: np.zeros((6, 256, 256, 3), np.uint8))
    persons = source.persons([1])
    points, visible = persons.joints[0], persons.visible[0]
    assert np.flatnonzero(visible == 0).tolist() == [
        0,
        2,
    ]  # beyond the frame's last pixel; below the threshold
    assert not points[[0, 2]].any() and np.array_equal(points[1], detected[1, :2])


def test_a_broken_cache_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "synthocc-1"
    folder.mkdir()
    np.savez(folder / "case-0000.npz", pictures=np.zeros((2, 3)))
    with pytest.raises(InputError, match="no images of SynthOcc"):
        open_source("synthocc", tmp_path).persons([0])
