"""The generator: the same index gives the same sample, and its labels are right."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from dpmesh.body.files import population_body
from dpmesh.body.layer import BodyModel
from dpmesh.data.poses import PoseBank
from dpmesh.data.sample import Sample, stack
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.data.synthetic.body import FastBody, matrices
from dpmesh.data.synthetic.generator import visible_joints
from dpmesh.data.synthetic.scene import CROP_DIAGONALS, FOCAL_DIAGONALS, NEAREST, OTHERS, draw_scenes
from dpmesh.data.synthetic.zbuffer import LOOSE, OTHER, PERSON, THING
from dpmesh.errors import InputError
from dpmesh.skeletons import JOINTS30


@pytest.fixture(scope="module")
def bank() -> PoseBank:
    return PoseBank.load("train")


@pytest.fixture(scope="module")
def people(bank: PoseBank) -> SyntheticPeople:
    return SyntheticPeople(7, bank, population_body())


@pytest.fixture(scope="module")
def samples(people: SyntheticPeople) -> list[Sample]:
    return [people.sample(index) for index in range(12)]


def test_the_fast_body_is_the_body() -> None:
    arrays = population_body()
    fast, model = FastBody(arrays), BodyModel(arrays)
    rng = np.random.default_rng(0)
    betas = rng.standard_normal((3, 10)).astype(np.float32)
    rotations = matrices(rng.normal(0, 0.6, (3, 24, 3)))
    output = model(torch.from_numpy(betas), torch.from_numpy(rotations))
    joints, coco = fast.joints(betas, rotations)
    assert np.abs(joints - output.joints30.numpy()).max() < 1e-5
    assert np.abs(coco - model.regress(output.vertices, "coco17").numpy()).max() < 1e-5
    for i in range(3):
        assert np.abs(fast.posed(betas[i], rotations[i]) - output.vertices[i].numpy()).max() < 1e-5


def test_an_index_is_a_sample(people: SyntheticPeople, samples: list[Sample], bank: PoseBank) -> None:
    again = SyntheticPeople(7, bank, population_body())
    for index in (11, 0, 5):  # in another order, from another object
        for field in fields(Sample):
            assert np.array_equal(
                getattr(again.sample(index), field.name), getattr(samples[index], field.name)
            )
    other = (
        SyntheticPeople(8, bank, population_body()).sample(0).crop
    )  # nor is another seed the same row, shifted
    assert not any(np.array_equal(other, sample.crop) for sample in samples)
    batch = people.batch(3, 2)
    assert batch["record_id"] == ["synthetic/7/3", "synthetic/7/4"]
    for field in fields(Sample)[1:]:
        assert np.array_equal(
            batch[field.name][1], np.asarray(getattr(samples[4], field.name), batch[field.name].dtype)
        )


def test_targets_agree_with_each_other_and_with_the_body(
    samples: list[Sample], people: SyntheticPeople
) -> None:
    keypoints = people.keypoints_only(np.random.default_rng(0), 40)
    rendered = stack(samples)
    model = BodyModel(population_body())
    for batch in (rendered, keypoints):
        projected = (
            batch["joints3d"][..., :2] / batch["joints3d"][..., 2:] * batch["focal"][:, None, None] + 128
        )
        ahead = batch["joints3d"][..., 2] > 0.05
        assert ahead.all()
        assert np.abs(projected - batch["joints2d"]).max() < 1e-2 * max(
            1, np.abs(batch["joints2d"]).max() / 256
        )
        posed = model.joints30_only(
            torch.from_numpy(batch["betas"]),
            torch.from_numpy(matrices(batch["pose"])),
            torch.from_numpy(batch["transl"]),
        )
        assert np.abs(posed.numpy() - batch["joints3d"]).max() < 2e-4
        assert ((batch["joints"] == 0).all(-1) | (batch["visible"] == 1)).all()
        assert set(np.unique(batch["visible"])) == {0, 1}
        shown = batch["joints2d"][batch["joint_visible"] > 0]
        assert shown.min() >= 0 and shown.max() <= 255
        for name in ("joints2d", "joints3d", "pose", "betas", "fit"):
            assert (batch[f"{name}_valid"] == 1).all()
        assert (batch["fit_joints2d"] == batch["joints2d"]).all()
        assert (batch["fit_joints3d"] == batch["joints3d"]).all()
    assert rendered["surface_valid"].all() and not keypoints["surface_valid"].any()
    assert keypoints["record_id"][39] == "synthetic-keypoints/39"
    assert "crop" not in keypoints and not keypoints["has_image"].any() and rendered["has_image"].all()


def test_people_are_framed_as_a_detector_would(people: SyntheticPeople, bank: PoseBank) -> None:
    batch = people.keypoints_only(np.random.default_rng(1), 2000)
    extent = np.ptp(batch["joints2d"], axis=1).max(1)
    assert (
        np.quantile(extent, 0.02) > 140 and 190 < np.median(extent) < 290
    )  # of 256 px; the tail is half bodies
    widest, longest = (FOCAL_DIAGONALS[k] / CROP_DIAGONALS[1 - k] * 256 for k in range(2))
    assert widest <= batch["focal"].min() < 1.3 * widest and 0.7 * longest < batch["focal"].max() <= longest
    assert batch["joints3d"][..., 2].min() > NEAREST - 1e-3
    beyond = [j for j, name in enumerate(JOINTS30.joints) if name in ("L_Toe", "Chest", "L_Hand", "Head_top")]
    visible = batch["visible"][:, beyond].max(1)
    assert 0.18 < visible.mean() < 0.27  # in a quarter of the samples also joints that COCO lacks
    head, feet = JOINTS30.index("Head_top"), [JOINTS30.index("L_Ankle"), JOINTS30.index("R_Ankle")]
    assert (
        batch["joints2d"][:, head, 1] < batch["joints2d"][:, feet, 1].mean(1)
    ).mean() > 0.85  # upright: y down
    scenes = draw_scenes(np.random.default_rng(2), 500, bank, FastBody(population_body()))
    company = np.bincount(scenes.other_of, minlength=500)
    assert (np.diff(scenes.other_of) >= 0).all() and company.max() == len(OTHERS) - 1
    assert 0.25 < (company > 0).mean() < 0.4
    assert 0.6 < ((scenes.frame == [0, 0, 256, 256]).all(1)).mean() < 0.85


def test_left_is_left(people: SyntheticPeople) -> None:
    batch = people.keypoints_only(np.random.default_rng(3), 400)
    nose, ears = (
        batch["joints3d"][:, JOINTS30.index("Nose")],
        batch["joints3d"][:, [JOINTS30.index("L_Ear"), JOINTS30.index("R_Ear")]],
    )
    facing = nose[:, 2] < ears[..., 2].mean(1) - 0.06
    head, pelvis = (batch["joints2d"][:, JOINTS30.index(name), 1] for name in ("Head_top", "Pelvis"))
    facing &= head < pelvis - 30
    assert facing.sum() > 50
    left, right = (batch["joints2d"][facing, JOINTS30.index(name), 0] for name in ("L_Ear", "R_Ear"))
    assert (
        left > right
    ).mean() > 0.9  # of a person who faces the camera the left ear is on the right of the image


def test_visibility_of_a_hand_made_scene() -> None:
    depth = np.full((256, 256), np.inf, np.float32)
    owner = np.zeros((256, 256), np.int8)
    pixels, joints = np.zeros((30, 2), np.float32), np.full((30, 3), 2.0, np.float32)
    expected = np.ones(30, bool)
    cases = [
        ("L_Wrist", PERSON, 1.9, True), ("R_Wrist", PERSON, 1.8, False), ("Pelvis", PERSON, 1.8, True),
        ("Neck", PERSON, 1.6, False), ("Nose", PERSON, 1.97, True), ("L_Eye", PERSON, 1.9, False),
        ("L_Hip", OTHER, 1.95, False), ("R_Hip", OTHER, 2.05, True), ("L_Knee", THING, 1.5, False),
        ("L_Ear", LOOSE, 1.97, False), ("R_Ear", LOOSE, 1.99, True), ("R_Knee", LOOSE, 1.9, True),
        ("L_Ankle", LOOSE, 1.8, False),
    ]  # fmt: skip
    for name, who, z, visible in cases:
        k = JOINTS30.index(name)
        pixels[k] = (8 * k + 5.4, 20.4)
        owner[20, 8 * k + 5], depth[20, 8 * k + 5] = who, z
        expected[k] = visible
    assert (visible_joints(joints, pixels, depth, owner) == expected).all()


def test_objects_hide_joints_but_never_most_of_the_person(samples: list[Sample]) -> None:
    shares = [sample.joint_visible.mean() for sample in samples]
    assert min(shares) < 0.6 < max(shares)
    assert all(sample.crop.std() > 2 for sample in samples)


def test_nothing_cannot_be_stacked() -> None:
    with pytest.raises(InputError):
        stack([])


def test_the_surface_lies_on_the_body_by_the_part_that_is_named(samples: list[Sample]) -> None:
    """Every cell, put back into space by its depth, lies near a vertex which that joint moves most."""
    arrays = population_body()
    model, part = BodyModel(arrays), arrays.weights.argmax(1)
    cells = 0
    for sample in samples:
        pose, betas, transl = (
            torch.from_numpy(a)[None] for a in (matrices(sample.pose[None])[0], sample.betas, sample.transl)
        )
        vertices = model(betas, pose, transl).vertices[0].numpy()
        rows, columns = np.nonzero(sample.parts)
        depth = sample.surface[rows, columns] + sample.joints3d[0, 2]
        pixels = np.stack([columns, rows], 1) * 8 - 128.0
        points = np.concatenate([pixels * (depth / sample.focal)[:, None], depth[:, None]], 1)
        for point, joint in zip(points, sample.parts[rows, columns].astype(int) - 1, strict=True):
            assert np.linalg.norm(vertices[part == joint] - point, axis=1).min() < 0.08
        assert not sample.surface[sample.parts == 0].any()
        cells += len(rows)
    assert cells > 50 * len(samples)


def test_what_an_object_hides_is_still_labelled(people: SyntheticPeople) -> None:
    labelled = 0
    for index in range(40):
        sample = people.sample(index)
        x, y = (np.round(sample.joints2d / 8).astype(int)).T
        inside = (x >= 0) & (x < 32) & (y >= 0) & (y < 32)
        hidden = inside & (sample.joint_visible == 0)
        labelled += int((sample.parts[y[hidden], x[hidden]] > 0).sum())
    assert labelled > 20
