"""One truth: parameters give vertices, joints give pixels, and the crop's prediction keeps its position."""

import copy
import io
import json
from collections.abc import Callable
from dataclasses import fields, replace
from operator import methodcaller
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from PIL import Image

from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.geometry.camera import crop_focal, crop_rotation, intrinsics, project
from dpmesh.geometry.crop import Crop
from dpmesh.inference.postprocess import postprocess
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.scene import Person, Scene
from dpmesh.types import Inputs, Prediction

notebook_image = methodcaller("_repr_png_")
"""As notebooks call it."""
IMAGE = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)


def test_projected_joints_are_the_2d_joints(predictor: Callable[..., Predictor]) -> None:
    scene = predictor()(IMAGE)
    assert len(scene.people) == 2
    for person in scene.people:
        np.testing.assert_allclose(project(person.joints3d, scene.K), person.joints2d, atol=1e-3)


def test_stored_parameters_give_the_stored_vertices(
    predictor: Callable[..., Predictor], body: BodyModel
) -> None:
    for person in predictor()(IMAGE, focal=400.0).people:
        vectors = np.concatenate([person.global_orient, person.body_pose]).reshape(1, 24, 3)
        rotations = roma.rotvec_to_rotmat(torch.from_numpy(vectors))
        again = body(torch.from_numpy(person.betas[None]), rotations, torch.from_numpy(person.transl[None]))
        np.testing.assert_allclose(again.vertices[0].numpy(), person.vertices, atol=1e-5)
        np.testing.assert_allclose(again.joints30[0].numpy(), person.joints3d, atol=1e-5)


def predict(model: torch.nn.Module, K: np.ndarray, crop: Crop) -> Prediction:
    focal = torch.tensor([crop_focal(K, crop)])
    return model(
        Inputs(torch.zeros(1, 3, 256, 256), torch.zeros(1, 30, 2), torch.zeros(1, 30), focal.float())
    )


def test_body_stays_where_the_crop_showed_it(predictor: Callable[..., Predictor]) -> None:
    """Off the axis a crop is only nearly a camera's image: joints move, but by pixels."""
    model, K = predictor().model, intrinsics(700.0, (360, 640))
    for crop in (Crop(220.0, 80.0, 200.0), Crop(400.0, 150.0, 240.0), Crop(-80.0, -60.0, 260.0)):
        prediction = predict(model, K, crop)
        (placed,) = postprocess(model.body, prediction, [crop], [K])
        wanted = crop.to_image(prediction.joints2d[0].detach().numpy())
        off = np.linalg.norm(project(placed.joints3d, K) - wanted, axis=1).mean()
        assert placed.solved
        assert off < 0.02 * crop.side


def test_on_the_axis_the_crop_prediction_is_kept(predictor: Callable[..., Predictor]) -> None:
    model, K = predictor().model, intrinsics(700.0, (360, 640))
    crop = Crop(320 - 100.0, 180 - 100.0, 200.0)
    prediction = predict(model, K, crop)
    (placed,) = postprocess(model.body, prediction, [crop], [K])
    np.testing.assert_allclose(placed.vertices, prediction.vertices[0].detach().numpy(), atol=2e-4)


def test_fallback_is_the_rotated_crop_prediction(predictor: Callable[..., Predictor]) -> None:
    """Pixels that fix no translation: the body is the crop camera's, rotated as a rigid whole."""
    model, K, crop = predictor().model, intrinsics(700.0, (360, 640)), Crop(380.0, 120.0, 240.0)
    prediction = predict(model, K, crop)
    broken = Prediction(**{**vars(prediction), "joints2d": torch.full((1, 30, 2), 90.0)})
    (placed,) = postprocess(model.body, broken, [crop], [K])
    assert not placed.solved
    turned = prediction.vertices[0].detach().numpy() @ crop_rotation(K, crop).T
    np.testing.assert_allclose(placed.vertices, turned, atol=1e-4)


def test_unbelievable_distance_is_not_taken(predictor: Callable[..., Predictor]) -> None:
    model, K, crop = predictor().model, intrinsics(700.0, (360, 640)), Crop(380.0, 120.0, 240.0)
    prediction = predict(model, K, crop)
    small = Prediction(**{**vars(prediction), "joints2d": 128 + (prediction.joints2d - 128) / 3})
    (placed,) = postprocess(model.body, small, [crop], [K])
    assert not placed.solved


def test_a_model_of_the_full_images_camera_is_not_rotated(predictor: Callable[..., Predictor]) -> None:
    """Its orientation is that of the image's camera already; its distance is not a distance of this camera."""
    model, K, crop = predictor().model, intrinsics(700.0, (360, 640)), Crop(400.0, 150.0, 120.0)
    focal = torch.tensor([np.hypot(360, 640)]).float()
    inputs = Inputs(torch.zeros(1, 3, 256, 256), torch.zeros(1, 30, 2), torch.zeros(1, 30), focal)
    prediction = model(inputs)
    (placed,) = postprocess(model.body, prediction, [crop], [K], "image")
    root = roma.rotvec_to_rotmat(torch.from_numpy(placed.global_orient))
    torch.testing.assert_close(root, prediction.global_orient[0], atol=1e-5, rtol=0)
    wanted = crop.to_image(prediction.joints2d[0].detach().numpy())
    off = np.linalg.norm(project(placed.joints3d, K) - wanted, axis=1).mean()
    assert placed.solved and off < 0.02 * crop.side
    broken = Prediction(**{**vars(prediction), "joints2d": torch.full((1, 30, 2), 90.0)})
    (kept,) = postprocess(model.body, broken, [crop], [K], "image")
    assert not kept.solved
    np.testing.assert_allclose(kept.joints3d[:, 2].mean(), placed.joints3d[:, 2].mean(), rtol=0.1)


def test_stacked_keeps_its_shape_without_people(predictor: Callable[..., Predictor]) -> None:
    empty, full = predictor([])(IMAGE), predictor()(IMAGE)
    for name in ("box", "keypoints2d", "body_pose", "vertices", "joints3d", "joints2d", "score"):
        assert empty.stacked(name).shape == (0, *full.stacked(name).shape[1:])
        assert full.stacked(name).dtype == np.float32


def test_a_scene_is_a_sequence_of_people(predictor: Callable[..., Predictor]) -> None:
    scene = predictor()(IMAGE)
    assert len(scene) == 2 and list(scene) == list(scene.people)
    assert scene[0] is scene.people[0] and scene[-1] is scene.people[1] and scene[:1] == scene.people[:1]
    with pytest.raises(IndexError):
        scene[2]
    empty = predictor([])(IMAGE)
    assert len(empty) == 0 and list(empty) == [] and empty  # an empty scene is no missing one


def test_short_reprs(predictor: Callable[..., Predictor]) -> None:
    scene = predictor()(IMAGE)
    assert repr(scene) == "Scene(2 people, 640×360, focal 734 px, guessed)"
    assert repr(predictor([(0.1, 0.1, 0.4, 0.9)])(IMAGE, focal=500.0)).startswith(
        "Scene(1 person, 640×360, f"
    )
    assert "focal 500 px, given" in repr(predictor()(IMAGE, focal=500.0))
    assert repr(scene[0]).startswith("Person(score 0.90, box 64 36 256 324, ")


def test_projection_overlay_and_side_view(predictor: Callable[..., Predictor], tmp_path: Path) -> None:
    scene = predictor()(IMAGE)
    np.testing.assert_allclose(scene.project(scene[0].joints3d), scene[0].joints2d, atol=1e-3)
    folder = scene.save(tmp_path, "a", ["overlay"])
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "overlay.png")), scene.overlay())
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "side.png")), scene.side_view())
    assert notebook_image(scene) == (folder / "overlay.png").read_bytes()


def same(a: Scene, b: Scene) -> None:
    """All that the files hold."""
    for name in ("image_size", "joint_names", "source", "source_sha256", "focal_source", "notes"):
        assert getattr(a, name) == getattr(b, name), name
    for name in ("fallbacks", "weights", "options"):
        assert json.loads(json.dumps(getattr(a, name))) == getattr(b, name), name
    np.testing.assert_array_equal(a.K, b.K)
    np.testing.assert_array_equal(a.faces, b.faces)
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        for field in fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), field.name)


@pytest.mark.parametrize("boxes", [None, []])
def test_load_gives_what_was_saved(
    predictor: Callable[..., Predictor], tmp_path: Path, boxes: list[tuple[float, ...]] | None
) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(IMAGE).save(path)
    scene = predictor(boxes)(path)
    scene = replace(
        scene, notes=("a note",), fallbacks={"turned": 1}, people=tuple(map(float32_score, scene))
    )
    folder = scene.save(tmp_path / "out")
    again = Scene.load(folder)
    same(scene, again)
    np.testing.assert_array_equal(again.image, IMAGE)  # its file is still there
    sent = copy.copy(replace(again, body=scene.body))
    assert sent.body is None  # nor does pickle take it along
    same(scene, sent)
    other = replace(again, body=scene.body).save(tmp_path / "again", "photo")
    for file in folder.iterdir():
        if file.suffix in (".png", ".glb", ".obj", ".json") and file.name != ".dpmesh.json":
            assert (other / file.name).read_bytes() == file.read_bytes(), file.name


def float32_score(person: Person) -> Person:
    """Arrays of files have 32 bits."""
    return replace(person, score=float(np.float32(person.score)))


def test_load_without_the_image(predictor: Callable[..., Predictor], tmp_path: Path) -> None:
    path, moved = tmp_path / "photo.png", tmp_path / "moved.png"
    Image.fromarray(IMAGE).save(path)
    folder = predictor()(path).save(tmp_path / "out")
    path.rename(moved)
    scene = Scene.load(folder)
    assert scene.image is None and notebook_image(scene) is None and scene.side_view().size
    for act in (scene.overlay, lambda: scene.save(tmp_path / "b")):
        with pytest.raises(InputError, match=r"Scene.load\(folder, image=FILE\)"):
            act()
    assert not (tmp_path / "b").exists()
    np.testing.assert_array_equal(Scene.load(folder, moved).overlay().shape, IMAGE.shape)
    Image.fromarray(IMAGE[:50]).save(path)  # another image of that name
    assert Scene.load(folder).image is None
    with pytest.raises(InputError, match="640×50"):
        Scene.load(folder, path)


def test_load_of_missing_and_damaged_files(predictor: Callable[..., Predictor], tmp_path: Path) -> None:
    scene = replace(predictor()(IMAGE), source="a.jpg")
    folder = scene.save(tmp_path, "a", ["npz", "json"])
    with pytest.raises(InputError, match="no such folder"):
        Scene.load(tmp_path / "b")
    npz, text = (folder / "scene.npz").read_bytes(), (folder / "scene.json").read_text()
    with np.load(folder / "scene.npz") as file:
        arrays = dict(file)
    plain = json.loads(text)

    def packed(**changed: np.ndarray | None) -> bytes:
        file = io.BytesIO()
        np.savez(file, **{n: a for n, a in (arrays | changed).items() if a is not None})
        return file.getvalue()

    nan = arrays["betas"].copy()
    nan[0, 0] = np.nan
    for name, data in (
        ("scene.npz", npz[: len(npz) // 2]),
        ("scene.npz", packed(K=None)),
        ("scene.npz", packed(betas=arrays["betas"][:1])),
        ("scene.npz", packed(betas=nan)),
        ("scene.npz", packed(faces=arrays["faces"] + 9999)),
        ("scene.npz", packed(K=np.zeros((3, 3)))),
        ("scene.npz", packed(vertices=arrays["vertices"][0])),
        ("scene.npz", packed(image_size=np.zeros(2, np.int64))),
        ("scene.npz", packed(joint_names=arrays["joint_names"][:3])),
        ("scene.json", b"{"),
        ("scene.json", b"[]"),
        ("scene.json", json.dumps({**plain, "schema": "dpmesh.scene/2"}).encode()),
        ("scene.json", json.dumps({**plain, "people": plain["people"][:1]}).encode()),
        ("scene.json", json.dumps({**plain, "focal_source": "guess"}).encode()),
        ("scene.json", json.dumps({**plain, "options": None}).encode()),
    ):
        (folder / "scene.npz").write_bytes(npz)
        (folder / "scene.json").write_text(text)
        (folder / name).write_bytes(data)
        with pytest.raises(InputError) as caught:
            Scene.load(folder)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    for name in ("scene.npz", "scene.json"):
        (folder / "scene.npz").write_bytes(npz)
        (folder / "scene.json").write_text(text)
        (folder / name).unlink()
        with pytest.raises(InputError, match=f"holds no {name}"):
            Scene.load(folder)
