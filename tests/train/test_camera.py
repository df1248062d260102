"""Training obeys the model's camera: targets and focal length in its frame; released weights are fine-tuned there."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from dpmesh import config as configurations
from dpmesh.body.files import free_body
from dpmesh.config import EMBEDDED, RELEASE
from dpmesh.convert.released import convert_released
from dpmesh.data.annotation import Annotation
from dpmesh.data.augment import AugmentConfig, View
from dpmesh.data.crops import make_sample
from dpmesh.data.fits import FitBodies
from dpmesh.data.sample import stack
from dpmesh.errors import ConfigError
from dpmesh.geometry.camera import project
from dpmesh.geometry.crop import Crop
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.model import DPMesh
from dpmesh.train import trainer as loop
from dpmesh.train.config_file import read_settings
from dpmesh.train.context import TrainingContext, make_objective
from dpmesh.train.dataloader import BLIND, Part, Tensors, as_tensors, to_model_camera
from dpmesh.train.objectives.mesh import MeshObjective, targets_of
from dpmesh.types import BodyParameters
from tools.fixtures import released_twin as twin

ROOT = Path(__file__).parents[2]
STILL = AugmentConfig.still(noise=False)
TURNED = replace(STILL, p_flip=1.0, rotation=40.0, p_rotate=1.0)
CAMERAS = ["crop", "image"]
EXACT = ("joints3d", "root", "pose", "betas")


@pytest.fixture(scope="module")
def person() -> Annotation:
    """At the left border of an image of 1200 × 900 px: the ray through the middle of the crop is 24 degrees off."""
    K = np.array([[1000.0, 0, 600], [0, 1000.0, 450], [0, 0, 1]])
    pose = np.random.default_rng(1).normal(0, 0.2, (24, 3)).astype(np.float32)
    pose[0] = [np.pi, 0.1, 0.2]
    betas = np.random.default_rng(2).normal(0, 1, 10).astype(np.float32)
    blank = Annotation(
        "t/1",
        Path(),
        (1200, 900),
        np.array([1.0, 1, 2, 2]),
        K,
        np.zeros((30, 2), np.float32),
        np.ones(30, np.float32),
    )
    bodies = FitBodies(free_body(), foreign=True)
    someone = bodies.attach(blank, pose, betas, np.array([-2.0, 0.1, 4.5], np.float32))
    pixels = project(someone.fit_joints3d, K).astype(np.float32)
    box = np.concatenate([pixels.min(0), pixels.max(0)]).astype(np.float64)
    return replace(
        someone, box=box, annotated=box, joints2d=pixels, joints3d=someone.fit_joints3d,
        joints3d_valid=np.ones(30, np.float32), pose_valid=np.ones(24, np.float32),
    )  # fmt: skip


def batch_of(person: Annotation, augment: AugmentConfig = STILL) -> Tensors:
    image = np.full((900, 1200, 3), 90, np.uint8)
    return as_tensors(
        stack([make_sample(np.random.default_rng(k), person, image, augment) for k in range(2)])
    )


def config(child: ModuleType, camera: str) -> Any:
    return replace(child.TINY, name=f"tiny-{camera}", camera=camera)


def test_in_the_images_camera_a_person_is_as_annotated(child: ModuleType, person: Annotation):
    """Nothing turned: the annotation's own numbers, written before there was a crop; the focal length is
    sqrt(1200² + 900²)."""
    batch = batch_of(person)
    own = to_model_camera(batch, config(child, "image"))
    assert own["focal"].tolist() == [1500.0, 1500.0]
    for got, wanted in ((own["joints3d"], person.joints3d), (own["fit_joints3d"], person.fit_joints3d)):
        torch.testing.assert_close(got[0], torch.from_numpy(wanted), atol=2e-5, rtol=0)
    torch.testing.assert_close(
        rotation_matrix(own["pose"][0]), rotation_matrix(torch.from_numpy(person.pose)), atol=1e-5, rtol=0
    )
    same = to_model_camera(batch, config(child, "crop"))
    assert same is batch
    turn = rotation_matrix(batch["pose"][:, 0]) @ rotation_matrix(own["pose"][:, 0]).mT
    angle = torch.rad2deg(torch.arccos((turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2))
    assert 20 < float(angle.min()) < 30  # what training in the crop's camera was off by


def test_in_the_images_camera_a_mirrored_and_turned_person_is_mirrored_and_turned_there(person: Annotation):
    """x' = R F x about the image camera's own axis: 40 degrees clockwise after the mirror, pixels as in the crop."""
    view = View(Crop.around(person.box, 1.1), person.K, True, 40.0)
    cos, sin = np.cos(np.radians(40)), np.sin(np.radians(40))
    turn = np.array([[-cos, -sin, 0], [-sin, cos, 0], [0, 0, 1]])
    moved = view.places(person.joints3d) @ view.to_image_camera.T
    assert np.abs(moved - person.joints3d @ turn.T).max() < 1e-5
    assert np.linalg.det(view.to_image_camera) == pytest.approx(1)


@pytest.mark.parametrize("augment", [STILL, TURNED], ids=["still", "turned"])
@pytest.mark.parametrize("camera", CAMERAS)
def test_perfect_parameters_in_the_models_camera_have_no_loss(
    child: ModuleType,
    person: Annotation,
    camera: str,
    augment: AugmentConfig,
    monkeypatch: pytest.MonkeyPatch,
):
    """And those of the other camera have one."""
    batch = batch_of(person, augment)
    losses = {}
    for predicted in CAMERAS:
        truth, _ = targets_of(to_model_camera(batch, config(child, predicted)))
        model = DPMesh(config(child, camera))
        perfect = BodyParameters(truth.rotations, truth.betas, batch["transl"], torch.zeros(2, 0))
        monkeypatch.setattr(DPMesh, "decode_parameters", lambda self, answer, focal, perfect=perfect: perfect)
        objective = MeshObjective(model, SETTINGS.stages[0], SETTINGS)
        with torch.no_grad():
            losses[predicted] = objective(batch, Part(1, 0))[1]
    for term in EXACT:
        assert losses[camera][term] < 2e-5, term
    if camera == "crop":  # its image is the crop's, to first order about the middle
        assert losses[camera]["joints2d"] < 0.02
    other = losses["image" if camera == "crop" else "crop"]
    assert other["root"] > 0.05 and other["joints3d"] > 0.01


SETTINGS = replace(read_settings(ROOT / "configs/release_finetune.toml"), workers=0, precision="32-true")


def test_one_focal_length_for_all_where_the_model_has_it_so(child: ModuleType, person: Annotation):
    batch = batch_of(person) | {"diagonal": torch.tensor([1500.0, 900.0])}
    batch |= {BLIND + name: value.flip(0) for name, value in batch.items()}
    own = to_model_camera(batch, replace(config(child, "image"), shared_focal=True))
    assert own["focal"].tolist() == [1500, 1500] and own[f"{BLIND}focal"].tolist() == [900, 900]
    torch.testing.assert_close(own[f"{BLIND}joints3d"], own["joints3d"].flip(0))
    crop = to_model_camera(batch, replace(config(child, "crop"), shared_focal=True))
    assert crop["focal"].tolist() == [float(batch["focal"][0])] * 2
    assert torch.equal(crop["pose"], batch["pose"])


def test_a_model_that_reads_its_maps_is_not_trained_in_the_images_camera(person: Annotation):
    with pytest.raises(ConfigError, match="reads joints off its maps"):
        to_model_camera(batch_of(person), replace(EMBEDDED, camera="image"))


def test_the_focal_length_of_training_is_a_setting(person: Annotation):
    """Each set's own (1000 px), or the diagonal of the whole image (1500 px) about its middle, also in a shard's part
    of it: here half the size, from pixel (100, 50) on."""
    part = replace(
        person, size=(300, 300), full_size=(1200, 900), full_place=np.array([-50.0, -25.0, 0.5]),
        box=(person.box - [100, 50, 100, 50]) / 2, K=np.array([[500.0, 0, 250], [0, 500, 200], [0, 0, 1]]),
        joints2d=(person.joints2d - np.float32([100, 50])) / 2,
    )  # fmt: skip
    assert part.diagonal_camera.tolist() == [[750, 0, 250], [0, 750, 200], [0, 0, 1]]
    samples = {}
    for focal in ("set", "diagonal"):
        augment = AugmentConfig.still(noise=False, focal=focal)
        whole, cut = batch_of(person, augment), batch_of(part, augment)
        for name in ("focal", "joints3d", "joints2d", "to_image", "diagonal"):
            torch.testing.assert_close(whole[name], cut[name], atol=2e-3, rtol=1e-5)
        samples[focal] = whole
    x = (person.box[0] + person.box[2]) / 2 - 600
    y = (person.box[1] + person.box[3]) / 2 - 450
    for focal, f in (("set", 1000.0), ("diagonal", 1500.0)):
        batch = samples[focal]
        scale = 256 / (1.1 * (person.box[2:] - person.box[:2]).max())
        assert float(batch["focal"][0]) == pytest.approx(
            f * (1 + (x * x + y * y) / f**2) ** 0.75 * scale, rel=1e-4
        )
        # The person keeps its position: rotated back it is the annotation, whichever camera was assumed.
        back = batch["joints3d"] @ batch["to_image"].mT
        torch.testing.assert_close(back[0], torch.from_numpy(person.joints3d), atol=2e-5, rtol=0)
        assert torch.equal(batch["joints2d"], samples["set"]["joints2d"])  # the crop is the same
    with pytest.raises(ConfigError, match="'film' is not one of 'set', 'diagonal'"):
        read_settings(ROOT / "configs/release_finetune.toml", {"data.augment.focal": "film"})


@pytest.mark.slow
def test_a_released_checkpoint_is_trained_on_in_its_own_camera(
    child: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """configs/release_finetune.toml on the twin of a checkpoint, made narrow, and on synthetic people: it runs, moves
    what `release` trains, and leaves weights of the same configuration."""
    small = twin.small_config()
    monkeypatch.setitem(configurations.PRESETS, "release", small)
    torch.save(twin.released_state(small, twin.SMALL), tmp_path / "twin.pth.tar")
    convert_released(tmp_path / "twin.pth.tar", tmp_path / "start", small)
    changes = {
        "start": str(tmp_path / "start"), "out": str(tmp_path / "run"), "body": "free", "workers": 0,
        "precision": "32-true", "validation_people": 2, "validate_every": 1, "preview_every": 1,
        "data": {"overfit_people": 2}, "finetune.epochs": 0, "finetune.steps": 1, "finetune.batch": 2,
    }  # fmt: skip
    settings = read_settings(ROOT / "configs/release_finetune.toml", changes)
    assert settings.model == "release" and RELEASE.camera == small.camera == "image"
    focals: list[torch.Tensor] = []
    monkeypatch.setattr(
        "dpmesh.train.objectives.mesh.targets_of",
        lambda batch: focals.append(batch["focal"]) or targets_of(batch),
    )
    weights = loop.train(settings)
    trained, before = DPMesh.from_pretrained(weights), DPMesh.from_pretrained(tmp_path / "start")
    assert trained.config == before.config == small
    moved = {n for n, p in trained.named_parameters() if not torch.equal(p, before.get_parameter(n))}
    assert any(".lora_" in name for name in moved) and any(name.startswith("regressor") for name in moved)
    assert not any(name.startswith(("backbone.vae", "backbone.controlnet", "pose_prior")) for name in moved)
    # Whole images' diagonals: synthetic crops are 0.12 to 0.8 of them wide. The first one's serves all.
    assert 320 <= float(focals[0].min()) == float(focals[0].max()) <= 2134
    assert (tmp_path / "run/previews").is_dir()

    convert_released(tmp_path / "twin.pth.tar", tmp_path / "merged", small, merge_lora=True)
    with pytest.raises(ConfigError, match="not weights of") as caught:
        make_objective(TrainingContext.resolve(replace(settings, start=str(tmp_path / "merged"))), 0)
    assert "without --merge-lora" in caught.value.fix
