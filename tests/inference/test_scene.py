"""One truth: parameters give vertices, joints give pixels, and the crop's answer keeps its place."""

from collections.abc import Callable

import numpy as np
import roma
import torch

from dpmesh.body.layer import BodyModel
from dpmesh.geometry.camera import crop_focal, crop_rotation, intrinsics, project
from dpmesh.geometry.crop import Crop
from dpmesh.inference.postprocess import postprocess
from dpmesh.inference.predictor import Predictor
from dpmesh.types import Inputs, Prediction

PICTURE = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)


def test_projected_joints_are_the_2d_joints(predictor: Callable[..., Predictor]) -> None:
    scene = predictor()(PICTURE)
    assert len(scene.people) == 2
    for person in scene.people:
        np.testing.assert_allclose(project(person.joints3d, scene.K), person.joints2d, atol=1e-3)


def test_stored_parameters_give_the_stored_vertices(
    predictor: Callable[..., Predictor], body: BodyModel
) -> None:
    for person in predictor()(PICTURE, focal=400.0).people:
        vectors = np.concatenate([person.global_orient, person.body_pose]).reshape(1, 24, 3)
        rotations = roma.rotvec_to_rotmat(torch.from_numpy(vectors))
        again = body(torch.from_numpy(person.betas[None]), rotations, torch.from_numpy(person.transl[None]))
        np.testing.assert_allclose(again.vertices[0].numpy(), person.vertices, atol=1e-5)
        np.testing.assert_allclose(again.joints30[0].numpy(), person.joints3d, atol=1e-5)


def answer(model: torch.nn.Module, K: np.ndarray, crop: Crop) -> Prediction:
    focal = torch.tensor([crop_focal(K, crop)])
    return model(
        Inputs(torch.zeros(1, 3, 256, 256), torch.zeros(1, 30, 2), torch.zeros(1, 30), focal.float())
    )


def test_body_stays_where_the_crop_showed_it(predictor: Callable[..., Predictor]) -> None:
    """Off the axis a crop is only nearly a camera's picture: joints move, but by pixels."""
    model, K = predictor().model, intrinsics(700.0, (360, 640))
    for crop in (Crop(220.0, 80.0, 200.0), Crop(400.0, 150.0, 240.0), Crop(-80.0, -60.0, 260.0)):
        prediction = answer(model, K, crop)
        (placed,) = postprocess(model.body, prediction, [crop], [K])
        wanted = crop.to_image(prediction.joints2d[0].detach().numpy())
        off = np.linalg.norm(project(placed.joints3d, K) - wanted, axis=1).mean()
        assert placed.solved
        assert off < 0.02 * crop.side


def test_on_the_axis_the_crop_answer_is_kept(predictor: Callable[..., Predictor]) -> None:
    model, K = predictor().model, intrinsics(700.0, (360, 640))
    crop = Crop(320 - 100.0, 180 - 100.0, 200.0)
    prediction = answer(model, K, crop)
    (placed,) = postprocess(model.body, prediction, [crop], [K])
    np.testing.assert_allclose(placed.vertices, prediction.vertices[0].detach().numpy(), atol=2e-4)


def test_fallback_is_the_crop_answer_turned(predictor: Callable[..., Predictor]) -> None:
    """Pixels that fix no translation: the body is the crop camera's, rotated as a rigid whole."""
    model, K, crop = predictor().model, intrinsics(700.0, (360, 640)), Crop(380.0, 120.0, 240.0)
    prediction = answer(model, K, crop)
    broken = Prediction(**{**vars(prediction), "joints2d": torch.full((1, 30, 2), 90.0)})
    (placed,) = postprocess(model.body, broken, [crop], [K])
    assert not placed.solved
    turned = prediction.vertices[0].detach().numpy() @ crop_rotation(K, crop).T
    np.testing.assert_allclose(placed.vertices, turned, atol=1e-4)


def test_unbelievable_distance_is_not_taken(predictor: Callable[..., Predictor]) -> None:
    model, K, crop = predictor().model, intrinsics(700.0, (360, 640)), Crop(380.0, 120.0, 240.0)
    prediction = answer(model, K, crop)
    small = Prediction(**{**vars(prediction), "joints2d": 128 + (prediction.joints2d - 128) / 3})
    (placed,) = postprocess(model.body, small, [crop], [K])
    assert not placed.solved


def test_a_model_of_the_full_pictures_camera_is_not_turned(predictor: Callable[..., Predictor]) -> None:
    """Its orientation is that of the picture's camera already, and its own distance is no distance of this camera."""
    model, K, crop = predictor().model, intrinsics(700.0, (360, 640)), Crop(400.0, 150.0, 120.0)
    told = torch.tensor([np.hypot(360, 640)]).float()
    given = Inputs(torch.zeros(1, 3, 256, 256), torch.zeros(1, 30, 2), torch.zeros(1, 30), told)
    prediction = model(given)
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
    empty, full = predictor([])(PICTURE), predictor()(PICTURE)
    for name in ("box", "keypoints2d", "body_pose", "vertices", "joints3d", "joints2d", "score"):
        assert empty.stacked(name).shape == (0, *full.stacked(name).shape[1:])
        assert full.stacked(name).dtype == np.float32
