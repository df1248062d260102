"""Attention maps: the model's own numbers, over the right pixels, in whole folders."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpmesh.backbone.features import Features
from dpmesh.errors import ConfigError, OutputError
from dpmesh.geometry.crop import Crop
from dpmesh.inference.attention import (
    COLUMNS,
    LABEL,
    TILE,
    Attention,
    PersonAttention,
    attention_maps,
    blend,
    joint_sheet,
    mean_sheet,
    stretch,
)
from dpmesh.inference.options import PredictOptions
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.preprocess import model_inputs, prepare_image
from dpmesh.inference.record import MARKER
from dpmesh.model import DPMesh
from dpmesh.skeletons import JOINTS30

Build = Callable[..., Predictor]
PHOTO = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)


def test_heat_is_highest_at_the_visible_joint(predictor: Build) -> None:
    """Rows are y, columns x, and a cell is drawn over the pixels that it stands for."""
    attention = attention_maps(predictor(), PHOTO)
    assert len(attention.people) == 2
    for person in attention.people:
        assert 10 < person.visible.sum() < 30
        for joint in np.flatnonzero(person.visible):
            y, x = np.unravel_index(person.over_crop()[joint].argmax(), (Crop.SIZE, Crop.SIZE))
            assert np.abs(person.joints[joint] - (x, y)).max() <= Crop.SIZE / 16


def test_batches_change_nothing_and_people_are_predicts(predictor: Build) -> None:
    one, many = attention_maps(predictor(batch=1), PHOTO), attention_maps(predictor(), PHOTO)
    boxes = [person.box for person in predictor()(PHOTO).people]
    for a, b, box in zip(one.people, many.people, boxes, strict=True):
        np.testing.assert_allclose(a.over_crop(), b.over_crop(), atol=1e-6)
        middle = np.array([a.crop.x1, a.crop.y1]) + a.crop.side / 2
        np.testing.assert_allclose(middle, (box[:2] + box[2:]) / 2, atol=1e-4)
        np.testing.assert_array_equal(a.rgb, a.crop.warp(PHOTO))


def test_the_average_is_of_stretched_maps_of_visible_joints(predictor: Build) -> None:
    person = attention_maps(predictor(), PHOTO).people[0]
    heat = person.over_crop()[person.visible]
    np.testing.assert_allclose(person.averaged(), np.mean([stretch(h) for h in heat], 0), atol=1e-6)
    quiet = {size: m.copy() for size, m in person.maps.items()}
    for maps in quiet.values():
        maps[~person.visible] = np.random.default_rng(0).random(maps[~person.visible].shape, np.float32)
    same = PersonAttention(person.crop, person.rgb, quiet, person.joints, person.visible, person.score)
    np.testing.assert_array_equal(same.averaged(), person.averaged())
    nothing = PersonAttention(
        person.crop, person.rgb, person.maps, person.joints, person.visible & False, person.score
    )
    assert np.isfinite(nothing.averaged()).all() and nothing.averaged().max() > 0


@torch.no_grad()
def test_the_real_models_maps_as_they_are_and_why_a_plain_mean_shows_nothing(predictor: Build) -> None:
    model = DPMesh.from_config("embedded").eval()
    real = Predictor(model, predictor().detector, "random")
    person = attention_maps(real, PHOTO, PredictOptions(max_people=1)).people[0]
    inputs = model_inputs(
        prepare_image(real.detector, PHOTO, PredictOptions(max_people=1)).persons, model.camera, real.device
    )
    features = model(inputs, features=True).features
    assert features is not None and list(person.maps) == sorted(features.maps)
    for size, maps in person.maps.items():
        np.testing.assert_allclose(maps, features.maps[size][0].numpy(), atol=1e-5)
        np.testing.assert_allclose(maps.sum(0), 1, atol=1e-4)
    np.testing.assert_allclose(person.over_crop().mean(0), 1 / 30, atol=1e-5)
    assert person.averaged().std() > 0.01


def test_files(predictor: Build, tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    attention = attention_maps(predictor(), tmp_path / "a.png")
    folder = attention.save(tmp_path / "o")
    kinds = ("joints.png", "mean.png")
    assert {p.name for p in folder.iterdir()} - {MARKER} == {
        f"person_{i:02d}_{k}" for i in (0, 1) for k in kinds
    } | {f"person_{i:02d}.npz" for i in (0, 1)}
    sheet = np.asarray(Image.open(folder / "person_00_joints.png"))
    assert sheet.shape == (30 // COLUMNS * (TILE + LABEL), COLUMNS * TILE, 3)
    person = attention.people[1]
    with np.load(folder / "person_01.npz", allow_pickle=False) as stored:
        assert {n for n in stored.files if n.startswith("map_")} == {"map_8", "map_16"}
        np.testing.assert_array_equal(stored["map_16"], person.maps[16])
        np.testing.assert_array_equal(stored["told"], person.visible)
        np.testing.assert_array_equal(stored["joints"], person.joints)
        np.testing.assert_allclose(stored["crop_box"][2:] - stored["crop_box"][:2], person.crop.side)
        assert tuple(stored["joint_names"]) == JOINTS30.joints
        assert stored["source"] == str(tmp_path / "a.png") and len(str(stored["source_sha256"])) == 64


def test_each_joint_has_its_own_tile() -> None:
    rgb, visible = np.full((256, 256, 3), 90, np.uint8), np.zeros(30, bool)
    heat, joints = np.zeros((30, 256, 256), np.float32), np.zeros((30, 2), np.float32)
    before = joint_sheet(rgb, heat, joints, visible)
    heat[8, 128:, 128:] = 1  # R_Ankle: second row, third column, lower right quarter
    after = joint_sheet(rgb, heat, joints, visible)
    changed = np.argwhere((before != after).any(-1))
    top, left = TILE + LABEL, 2 * TILE
    assert changed.min(0).tolist() >= [top + TILE // 2 - 2, left]
    image = changed[changed[:, 0] < top + TILE]
    assert (image.min(0) >= (top + TILE // 2 - 2, left + TILE // 2 - 2)).all()
    assert (changed.max(0) < (top + TILE + LABEL, left + TILE)).all()


def test_colour_follows_heat_and_visible_joints_are_ringed() -> None:
    grey, heat = np.full((256, 256, 3), 90, np.uint8), np.zeros((256, 256), np.float32)
    heat[:, 128:] = 1
    painted = blend(grey, heat).astype(int)
    assert painted[0, 255].sum() > painted[0, 0].sum() + 200
    joints, visible = np.full((30, 2), 64.0, np.float32), np.zeros(30, bool)
    plain = mean_sheet(grey, heat, joints, visible)
    visible[3] = True
    ringed = mean_sheet(grey, heat, joints, visible)
    changed = np.argwhere((plain != ringed).any(-1))
    np.testing.assert_allclose(changed.mean(0), 2 * 64 + 0.5, atol=1)


def test_a_flat_map_stays_dark() -> None:
    flat = np.full((4, 4), 1 / 30, np.float32)
    flat[0, 0] += 2e-9
    assert (stretch(flat) == 0).all()
    ramp = stretch(np.array([[0.1, 0.2], [0.3, 0.5]], np.float32))
    np.testing.assert_allclose(ramp, [[0, 0.25], [0.5, 1]], atol=1e-6)


def test_whole_or_not_at_all(predictor: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attention = attention_maps(predictor(), PHOTO)
    folder = attention.save(tmp_path, "x")
    with pytest.raises(OutputError, match="exists already"):
        attention.save(tmp_path, "x")
    kept, write = (folder / "person_00.npz").read_bytes(), Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "person_01_mean.png":
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        Attention(attention.people[::-1]).save(tmp_path, "x", overwrite=True)
    assert (folder / "person_00.npz").read_bytes() == kept
    with pytest.raises(OutputError):
        attention.save(tmp_path, "y")
    assert not (tmp_path / "y").exists()


def test_a_model_without_maps_is_refused(predictor: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = predictor()
    plain = blind.model.forward  # pyright: ignore[reportAttributeAccessIssue]
    for features in (None, Features(torch.zeros(2, 1, 8, 8), {})):

        def forward(inputs: object, features: bool = False, result: Features | None = features) -> object:
            prediction = plain(inputs)
            object.__setattr__(prediction, "features", result)
            return prediction

        monkeypatch.setattr(blind.model, "forward", forward)
        with pytest.raises(ConfigError, match="no cross-attention"):
            attention_maps(blind, PHOTO)
