"""The floor as a correction: it tells how far away people are, their feet stand on it, and it is stored."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeDetector

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.geometry.camera import project
from dpmesh.geometry.floor import FEET, SOLE, Floor
from dpmesh.geometry.rotations import axis_angle, rotation_matrix
from dpmesh.inference.correct import correct
from dpmesh.inference.corrections import Correction, Corrections, Entry
from dpmesh.inference.pins import with_bodies
from dpmesh.inference.scene import Person, Scene
from dpmesh.skeletons import COCO17, JOINTS30

K = np.array([[900.0, 0, 480], [0, 900.0, 320], [0, 0, 1]])
CAMERA = 1.4
"""Metres above the true floor."""
LEVEL = Correction("floor", normal=(0.0, -2.0, 0.0), height=CAMERA)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel(free_body())


@pytest.fixture(scope="module")
def truth(body: BodyModel) -> Scene:
    """Two people who stand on one level floor, at 4 and 7 metres; the second one on the right foot alone."""
    turns = torch.eye(3).repeat(2, 24, 1, 1)
    turns[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    turns[1, [1, 4]] = rotation_matrix(torch.tensor([[-0.6, 0.0, 0.0], [0.9, 0.0, 0.0]]))
    places = torch.tensor([[-0.6, 0.0, 4.0], [0.9, 0.0, 7.0]])
    joints = body.joints30_only(torch.zeros(2, 10), turns, places)
    soles = (joints[:, FEET, 1] + torch.tensor(SOLE)).amax(1)
    places[:, 1] = CAMERA - soles
    flat, people = axis_angle(turns).numpy(), list[Person]()
    for i in range(2):
        pixels = project(
            body.joints30_only(torch.zeros(1, 10), turns[i : i + 1], places[i : i + 1])[0].numpy(), K
        )
        keypoints = np.column_stack([pixels, np.full(30, 0.9)])[list(COCO17.indices_in(JOINTS30))]
        people.append(
            Person(
                box=np.concatenate([pixels.min(0) - 10, pixels.max(0) + 10]).astype(np.float32),
                keypoints2d=keypoints.astype(np.float32),
                global_orient=flat[i, 0], body_pose=flat[i, 1:].ravel(), betas=np.zeros(10, np.float32),
                transl=places[i].numpy(), vertices=np.zeros((0, 3), np.float32),
                joints3d=np.zeros((30, 3), np.float32), joints2d=np.zeros((30, 2), np.float32), score=0.9,
                joint_sigma=np.full(30, 0.1, np.float32),
            )
        )  # fmt: skip
    posed = with_bodies(people, turns, torch.zeros(2, 10), places, body, K)
    return Scene(
        K=K, image_size=(640, 960), joint_names=JOINTS30.joints, faces=body.faces.numpy().astype(np.int32),
        people=tuple(posed), image=np.zeros((640, 960, 3), np.uint8), source="a.png", body=body,
    )  # fmt: skip


@pytest.fixture(scope="module")
def scene(truth: Scene, body: BodyModel) -> Scene:
    """As predicted: the first 12 % too far away, the second 10 % too near."""
    shifts = np.array([1.12, 0.9])
    vectors = np.concatenate([truth.stacked("global_orient"), truth.stacked("body_pose")], 1)
    turns = rotation_matrix(torch.from_numpy(vectors).reshape(2, 24, 3))
    places = torch.from_numpy(truth.stacked("transl") * shifts[:, None].astype(np.float32))
    people = with_bodies(truth.people, turns, torch.zeros(2, 10), places, body, K)
    return replace(truth, people=tuple(people))


def corrected(scene: Scene, body: BodyModel, *steps: Correction) -> Scene:
    def nobody(_: object) -> Any:
        raise AssertionError("the floor alone needs no model")

    return correct(scene, steps, body, FakeDetector([]), nobody)


def above(scene: Scene, floor: Floor) -> np.ndarray:
    """Lowest sole of each person, metres above the floor."""
    return (floor.heights(scene.stacked("joints3d")[:, FEET]) - SOLE).min(1)


def test_the_floor_tells_how_far_away_people_are(truth: Scene, scene: Scene, body: BodyModel) -> None:
    result = corrected(scene, body, LEVEL)
    assert result.floor is not None
    np.testing.assert_allclose(result.floor.up, [0, -1, 0])
    assert np.abs(above(scene, result.floor)).min() > 0.04
    assert np.abs(above(result, result.floor)).max() < 0.005
    true, before, after = (one.stacked("joints3d")[..., 2].mean(1) for one in (truth, scene, result))
    assert (np.abs(after - true) < 0.6 * np.abs(before - true)).all()
    off = np.linalg.norm(result.stacked("joints2d") - truth.stacked("joints2d"), axis=-1)
    assert off.mean() < 4  # pixels
    raised, there = (result.floor.heights(one[1].joints3d[list(FEET[:2])]) for one in (truth, result))
    assert raised.min() > 0.05 and np.abs(there - raised).max() < 0.03  # the foot in the air stays there
    assert [p.corrected for p in result] == [("floor",), ("floor",)]


def test_points_and_feet_give_the_floor(truth: Scene, body: BodyModel) -> None:
    soles = truth.stacked("joints3d")[:, list(FEET)] + np.array(SOLE)[:, None] * [0, 1, 0]
    clicks = [tuple(map(float, at)) for at in project(soles[[0, 1], [1, 3]], K)]
    for step in (Correction("floor"), Correction("floor", pixels=tuple(clicks))):
        floor = corrected(truth, body, step).floor
        assert floor is not None
        assert np.degrees(np.arccos(-floor.up[1])) < 1
        assert floor.height == pytest.approx(CAMERA, abs=0.02)


def test_the_last_floor_counts_and_a_shorter_list_undoes(scene: Scene, body: BodyModel) -> None:
    one = corrected(scene, body, Correction("floor", people=(0,)))
    assert one[1] is scene[1] and one[0].corrected == ("floor",)
    both = corrected(scene, body, Correction("floor", people=(0,)), LEVEL)
    np.testing.assert_array_equal(both.stacked("joints3d"), corrected(scene, body, LEVEL).stacked("joints3d"))
    left = corrected(scene, body, Correction("delete", 0), LEVEL)
    assert len(left) == 1 and abs(above(left, Floor(np.array([0.0, -1, 0]), CAMERA))[0]) < 0.005
    nobody = corrected(scene, body, Correction("delete", 0), Correction("delete", 1), LEVEL)
    assert len(nobody) == 0 and nobody.floor is not None


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([Correction("floor", normal=(0.0, -1.0, 0.0), height=2.2)], "person 0 cannot stand on this floor"),
        ([Correction("floor", pixels=((5.0, 5.0),))], "far from all feet"),
        ([Correction("floor", people=(2,))], "person 2 does not exist"),
        ([Correction("delete", 1), Correction("floor", people=(1,))], "person 1 was deleted"),
        ([Correction("delete", 0), Correction("delete", 1), Correction("floor")], "no person whose feet"),
        ([Correction("floor", pixels=((300.0, 600.0),), frame=3)], "of a frame of a video"),
    ],
)
def test_what_gives_no_floor(scene: Scene, body: BodyModel, steps: list[Correction], message: str) -> None:
    with pytest.raises(InputError, match=message):
        corrected(scene, body, *steps)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"normal": (0.0, -1.0, 0.0)}, "normal and height, or pixels"),
        ({"normal": (0.0, 0.0, 0.0), "height": 1.0}, "not all zero"),
        ({"normal": (0.0, -1.0, 0.0), "height": -1.0}, "more than zero"),
        ({"pixels": ()}, "a list of x y"),
        ({"people": (-1,)}, "a list of numbers from 0"),
        ({"person": 1}, "floor takes no person"),
    ],
)
def test_fields_of_the_floor(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Correction("floor", **fields)


def test_the_floor_is_stored(scene: Scene, body: BodyModel, tmp_path: Path) -> None:
    step = Correction("floor", pixels=((300.0, 600.0), (310.0, 590.0)), people=(0,))
    Corrections((Entry("a.png", "", (step, LEVEL)),)).write(tmp_path / "c.json")
    assert Corrections.read(tmp_path / "c.json").entries[0].corrections == (step, LEVEL)
    result = corrected(scene, body, LEVEL)
    folder = result.save(tmp_path, "a", formats=["npz", "json"])
    loaded = Scene.load(folder)
    assert loaded.floor is not None and result.floor is not None
    np.testing.assert_allclose(loaded.floor.up, result.floor.up)
    assert loaded.floor.height == pytest.approx(CAMERA)
    assert '"floor":{"up":[0.0,-1.0,0.0],"height":1.4}' in result.to_html().replace("-0.0", "0.0")
    plain = json.loads((folder / "scene.json").read_text())
    (folder / "scene.json").write_text(json.dumps({**plain, "floor": {"up": [0, -2, 0], "height": 1}}))
    with pytest.raises(InputError, match="floor is no up and height"):
        Scene.load(folder)
