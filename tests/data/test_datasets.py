"""Every adapter on its set's twin: sides, units, frames, fits and the defects of the originals."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dpmesh.body.files import free_body
from dpmesh.data import open_source
from dpmesh.data.annotation import Annotation, inside_box
from dpmesh.data.datasets import threedpw
from dpmesh.data.fits import POSE_KNOWN, FitBodies
from dpmesh.data.sources import SETS, FolderSource, read_folder
from dpmesh.errors import AssetError, ConfigError, InputError
from dpmesh.geometry.camera import project
from dpmesh.skeletons import COCO17, JOINTS30, SMPL24

J = JOINTS30.index
Sets = tuple[Path, dict[str, Any]]
H36M = ("Pelvis", "L_Hip", "R_Hip", "Torso", "L_Knee", "R_Knee", "L_Ankle", "R_Ankle", "Neck", "L_Shoulder",
        "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist", "Nose", "Head_top")  # fmt: skip
LIMBS = ("L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Ankle", "L_Shoulder", "R_Shoulder", "L_Elbow",
         "R_Elbow", "L_Wrist", "R_Wrist")  # fmt: skip
FACE = ("Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear")
# The joints that each set can ever fill.
FILLED = {
    "h36m": H36M,
    "muco": (*LIMBS, "Head_top", "Pelvis", "Spine", "Head", "L_Hand", "R_Hand", "L_Toe", "R_Toe"),
    "coco": (*LIMBS, *FACE, "Pelvis"),
    "crowdpose": (*LIMBS, "Head_top", "Neck", "Pelvis"),
    "3dpw": SMPL24.joints,
}
COUNT = {"h36m": 4, "muco": 2, "coco": 3, "crowdpose": 2, "3dpw": 3}


def read(kind: str, root: Path, bodies: FitBodies | None, **options: Any) -> FolderSource:
    return read_folder(kind, root, bodies=bodies, fits="smpl" if bodies else "none", **options)


@pytest.fixture(scope="module")
def people(sets: Sets, bodies: FitBodies) -> dict[str, list[Annotation]]:
    return {kind: read(kind, sets[0], bodies).people for kind in SETS}


@pytest.mark.parametrize("kind", SETS)
def test_joints_are_the_truth_in_metres_before_the_camera(
    kind: str, people: dict[str, list[Annotation]], sets: Sets
) -> None:
    assert len(people[kind]) == COUNT[kind]
    for person in people[kind]:
        truth = sets[1][person.record_id]
        filled = np.array([name in FILLED[kind] for name in JOINTS30.joints])
        if kind == "coco" and person.record_id.endswith("500"):
            filled[J("L_Ear")] = False
            assert not person.joint_clear[J("R_Knee")] and person.joint_clear.sum() == 29
        assert (person.joints2d_valid > 0).tolist() == filled.tolist()
        assert (person.joints2d[~filled] == 0).all() and (person.joints3d[~filled] == 0).all()
        wanted = {"coco": truth.coco, "3dpw": truth.joints}.get(kind, truth.named(JOINTS30.joints))
        if kind == "coco":
            hips = (truth.coco[11] + truth.coco[12]) / 2
            rows = {**dict(zip(COCO17.joints, wanted, strict=True)), "Pelvis": hips}
            wanted = np.stack([rows.get(name, np.ones(3)) for name in JOINTS30.joints])
        pixels = truth.pixels(wanted)
        limbs = np.array([J(name) for name in LIMBS])
        assert np.abs(person.joints2d[limbs] - pixels[limbs]).max() < 2e-3
        if SETS[kind].measured:
            assert (person.joints3d_valid > 0).tolist() == filled.tolist()
            assert np.abs(person.joints3d - wanted)[filled].max() < 1e-5
            assert np.abs(project(person.joints3d, person.K) - person.joints2d)[filled].max() < 1e-2
            left, right = person.joints3d[J("L_Wrist")], person.joints3d[J("R_Wrist")]
            assert left[1] < right[1] - 0.5  # the left hand is up: y down, metres
        else:
            assert not person.joints3d_valid.any()
            assert person.joints2d[J("L_Wrist"), 1] < person.joints2d[J("R_Wrist"), 1] - 50
        assert person.image.is_file() and person.image.is_relative_to(sets[0])
        pixels = truth.pixels(
            truth.joints
        )  # the twins annotate a box 8 px around them, also beyond the image
        around = np.concatenate([pixels.min(0) - 8, pixels.max(0) + 8])
        assert np.abs(person.annotated - around).max() < 1e-6
        assert person.full_size == person.size and person.full_place.tolist() == [0, 0, 1]
        x1, y1, x2, y2 = person.box
        assert 0 <= x1 < x2 <= person.size[0] - 1 and 0 <= y1 < y2 <= person.size[1] - 1


@pytest.mark.parametrize("kind", SETS)
def test_fits_pose_the_body_where_the_person_stands(
    kind: str, people: dict[str, list[Annotation]], sets: Sets
) -> None:
    without = {"h36m": 2, "coco": 1}.get(kind, 0)
    assert sum(not person.fit_valid for person in people[kind]) == without
    for person in (p for p in people[kind] if p.fit_valid):
        truth = sets[1][person.record_id]
        assert np.abs(person.fit_joints3d - truth.joints).max() < 1e-4
        assert np.abs(person.transl - truth.transl).max() < 1e-4
        assert np.abs(person.pose[1:] - truth.pose[1:]).max() < 1e-6
        turn = person.pose[0] - truth.pose[0]
        assert np.abs(turn).max() < 1e-4 or abs(np.linalg.norm(person.pose[0]) - np.pi) < 0.1
        assert (person.betas == truth.betas).all() and person.betas_valid == (kind != "3dpw")
        assert (person.pose_valid == POSE_KNOWN).all() and POSE_KNOWN.sum() == 16
        assert np.abs(person.rest_root - truth.root).max() < 1e-5
        assert np.abs(project(person.fit_joints3d, person.K) - truth.pixels(truth.joints)).max() < 0.05


def test_a_fit_that_is_off_is_dropped_and_the_person_kept(sets: Sets, bodies: FitBodies) -> None:
    source = read("h36m", sets[0], bodies)
    bad = next(p for p in source.people if "s_05" in p.record_id and "000005" in p.record_id)
    assert not bad.fit_valid and not bad.pose_valid.any() and bad.joints3d_valid.sum() == 17
    assert source.dropped["fit more than 25 mm off (the person is kept)"] == 1
    assert source.dropped["fit missing or not asked for (the person is kept)"] == 1
    assert source.dropped["not a fifth frame"] == 2


def test_the_nearest_person_of_a_muco_image_has_the_other_as_neighbour(
    people: dict[str, list[Annotation]], sets: Sets
) -> None:
    first, second = people["muco"]
    assert first.record_id == "muco/10/101" and second.record_id == "muco/11/110"
    assert first.neighbours.shape == (1, 17, 2) and second.neighbours.shape == (0, 17, 2)
    flags = first.neighbour_flags[0]
    assert flags.sum() == 12 and not flags[: COCO17.index("L_Shoulder")].any()
    assert (first.neighbours[0][flags == 0] == 0).all() and (first.neighbours[0][flags == 1] > 0).all()


def test_coco_leaves_out_crowds_and_keeps_labels_true(sets: Sets, bodies: FitBodies) -> None:
    source = read("coco", sets[0], bodies)
    assert source.dropped["a crowd, or without keypoints"] == 2
    first, second, alone = source.people
    assert (first.middle_pelvis, len(first.neighbours), len(second.neighbours), len(alone.neighbours)) == (
        True,
        1,
        1,
        0,
    )
    assert second.neighbour_flags[0][COCO17.index("L_Ear")] == 0  # the first person's, who lacks it
    assert second.neighbour_flags[0].sum() == 16
    diagonal = np.hypot(640, 480)
    assert np.allclose(alone.K, [[diagonal, 0, 320], [0, diagonal, 240], [0, 0, 1]])
    assert first.K[0, 0] == 1500


def test_crowdpose_sizes_and_fit_err(sets: Sets, bodies: FitBodies) -> None:
    assert all(
        p.size == (800, 320) for p in read("crowdpose", sets[0], bodies).people
    )  # the file says 320×800
    for rule, kept in (("all", [1, 1]), ("below", [1, 0]), ("above", [0, 1])):
        assert [p.fit_valid for p in read("crowdpose", sets[0], bodies, fit_err=rule).people] == kept
    with pytest.raises(ConfigError, match="fit_err"):
        read("crowdpose", sets[0], bodies, fit_err="small")


def test_crowdpose_flips_by_pairs() -> None:
    """The published list permutes shoulders, elbows, wrists and hips wrongly."""
    from dpmesh.skeletons import CROWDPOSE14

    assert CROWDPOSE14.flip == (1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12, 13)


def test_3dpw_gives_the_real_detection_and_leaves_benchmarks_alone(sets: Sets, bodies: FitBodies) -> None:
    source = read("3dpw", sets[0], bodies)
    assert {p.record_id.split("/")[1] for p in source.people} == {"courtyard_arguing_00"}
    person = source.people[0]
    truth = sets[1][person.record_id]
    knee = person.detected[J("L_Knee")]
    assert (
        np.allclose(knee[:2], truth.pixels(truth.named(("L_Knee",)))[0] + [4, 0], atol=1e-3) and knee[2] > 0.8
    )
    assert (person.detected[J("R_Wrist")] == 0).all() and person.detected[
        J("Pelvis"), 2
    ] > 0.8  # 0.03 is below 0.05
    assert len(read("3dpw", sets[0], bodies, benchmark_sequences=True).people) == 6
    for sequence, is_tested in (("outdoors_golf_00", 1), ("downtown_bus_00", 1), ("downtown_cafe_00", 0)):
        assert threedpw.tested_on(sequence) == is_tested


def test_3dpw_sequence_files_give_the_same(
    twins: ModuleType, tmp_path: Path, bodies: FitBodies, people: dict[str, list[Annotation]]
) -> None:
    twins.write_3dpw(tmp_path, "3dcrowdnet", pickles=True)
    source = read("3dpw", tmp_path, bodies)
    assert source.dropped["camera not valid"] == 1
    assert [p.record_id for p in source.people] == [p.record_id for p in people["3dpw"]]
    for ours, json_s in zip(source.people, people["3dpw"], strict=True):
        for field in (
            "joints2d",
            "joints3d",
            "transl",
            "fit_joints3d",
            "detected",
            "neighbours",
            "neighbour_flags",
        ):
            assert np.allclose(getattr(ours, field), getattr(json_s, field), atol=2e-3), field
        assert ours.size == json_s.size and np.allclose(ours.K, json_s.K)
    evil = tmp_path / "PW3D/data/sequenceFiles/train/courtyard_arguing_00.pkl"
    evil.write_bytes(pickle.dumps({"sequence": Path("/")}, protocol=2))
    with pytest.raises(InputError, match=r"pathlib.*nothing was run"):
        read("3dpw", tmp_path, bodies)


def test_without_a_gendered_body_pose_and_joints_are_kept(sets: Sets) -> None:
    source = read("3dpw", sets[0], FitBodies(free_body(), foreign=True))
    assert len(source.people) == 3 and not any(p.fit_valid for p in source.people)
    assert all(p.pose_valid.sum() == 16 and p.joints3d_valid.sum() == 24 for p in source.people)


def test_the_other_layout(
    twins: ModuleType, tmp_path: Path, bodies: FitBodies, people: dict[str, list[Annotation]]
) -> None:
    twins.write_muco(tmp_path, "3dcrowdnet")
    twins.write_coco(tmp_path, "3dcrowdnet")
    muco = read("muco", tmp_path, bodies).people
    assert [p.record_id for p in muco] == [p.record_id for p in people["muco"]]
    assert all((tmp_path / "MuCo/data") in p.image.parents and p.image.is_file() for p in muco)
    held_out = read("coco", tmp_path, bodies, split="validation").people
    assert len(held_out) == 3 and not any(p.fit_valid for p in held_out)
    assert all("val2017" in str(p.image) and p.image.is_file() for p in held_out)


def test_fits_need_smpl_and_joints_alone_do_not(
    sets: Sets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="for SMPL"):
        FitBodies(free_body())
    monkeypatch.setenv("DPMESH_ASSETS", str(tmp_path))
    with pytest.raises(AssetError, match="h36m_regressor"):
        open_source("coco", sets[0])
    source = open_source("coco", sets[0], fits="none")
    assert len(source) == 3 and not any(p.pose_valid.any() for p in source.people)  # pyright: ignore


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("h36m", "", "test"), "evaluation alone"),
        (("coco", "", "test2017"), "evaluation alone"),
        (("h36m", "", "validation"), "no validation split"),
        (("agora", ""), "no data set is called"),
        (("coco", "/nowhere"), "no such file"),
        (("3dpw", "/nowhere"), "neither"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(arguments: tuple[str, ...], match: str) -> None:
    with pytest.raises((ConfigError, InputError), match=match):
        open_source(*arguments, fits="none")


def _no_lists(path: Path) -> None:
    path.write_text('{"images": []}')


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _short_keypoints(path: Path) -> None:
    content = json.loads(path.read_text())
    content["annotations"][0]["keypoints"] = [1, 2, 3]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (_no_lists, "'annotations' is missing"),
        (_cut, "is not JSON"),
        (_short_keypoints, "17×3 numbers"),
    ],
)
def test_a_damaged_annotation_file_is_named(
    sets: Sets, tmp_path: Path, harm: Callable[[Path], None], match: str
) -> None:
    shutil.copytree(sets[0] / "MSCOCO/annotations", tmp_path / "MSCOCO/annotations")
    harm(tmp_path / "MSCOCO/annotations/person_keypoints_train2017.json")
    with pytest.raises(InputError, match=match):
        open_source("coco", tmp_path, fits="none")


def test_boxes_are_cut_at_the_border() -> None:
    cut = inside_box([-10, 20, 60, 600], (100, 200))
    assert cut is not None and cut.tolist() == [0, 20, 49, 199]  # the originals' would end at 59
    for nothing in ([10, 10, 0, 5], [500, 10, 20, 20], [-50, 0, 20, 20], [np.nan, 0, 5, 5]):
        assert inside_box(nothing, (100, 200)) is None
