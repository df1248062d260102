"""The uncertainty head reads the prediction and cannot change it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dpmesh.config import EMBEDDED
from dpmesh.errors import ConfigError
from dpmesh.losses import uncertainty_term
from dpmesh.model import DPMesh
from dpmesh.regressor.cascade import RegressorConfig
from dpmesh.regressor.uncertainty import DEVIATION, LEAST, MOST, START
from dpmesh.types import Inputs, Prediction

PARAMETERS = (
    "root_6d",
    "pose_latent",
    "betas",
    "camera",
    "vertices",
    "joints3d",
    "joints2d",
    "joints_img",
    "transl",
)
HEAD = "regressor.uncertainty."


def with_random_output(model: DPMesh) -> DPMesh:
    """The model with a random output layer in its uncertainty head, as if it were trained."""
    assert model.regressor.uncertainty is not None
    torch.manual_seed(1)
    torch.nn.init.normal_(model.regressor.uncertainty.out, std=0.05)
    return model


@pytest.fixture(scope="module")
def pair() -> tuple[DPMesh, DPMesh]:
    """The shipped weights without and with the head."""
    shipped = DPMesh.from_pretrained("embedded")
    state = {name: value for name, value in shipped.state_dict().items() if not name.startswith(HEAD)}
    bare = DPMesh(replace(EMBEDDED, regressor=replace(EMBEDDED.regressor, uncertainty=0))).eval()
    bare.load_state_dict(state)
    whole = with_random_output(DPMesh(EMBEDDED)).eval()
    missing, unexpected = whole.load_state_dict(state, strict=False)
    assert not unexpected and all(name.startswith(HEAD) for name in missing)
    return bare, whole


def inputs(n: int = 3) -> Inputs:
    g = torch.Generator().manual_seed(0)
    return Inputs(
        torch.rand(n, 3, 256, 256, generator=g),
        torch.rand(n, 30, 2, generator=g) * 256,
        (torch.rand(n, 30, generator=g) < 0.7).float(),
        torch.rand(n, generator=g) * 1000 + 300,
    )


def one(data: Inputs, i: int) -> Inputs:
    return Inputs(*(values[i : i + 1] for values in vars(data).values() if values is not None))


def sigma(prediction: Prediction) -> Tensor:
    assert prediction.joint_sigma is not None
    return prediction.joint_sigma


@torch.no_grad()
def test_the_same_bodies_to_the_bit_with_and_without(pair: tuple[DPMesh, DPMesh]):
    without, prediction = pair[0](inputs()), pair[1](inputs())
    for name in PARAMETERS:
        assert torch.equal(getattr(without, name), getattr(prediction, name)), name
    assert without.joint_sigma is None and not pair[0].predicts_sigma
    assert pair[1].predicts_sigma and sigma(prediction).shape == (3, 30)


@torch.no_grad()
def test_metres_within_bounds_and_nothing_for_the_pelvis(pair: tuple[DPMesh, DPMesh]):
    predicted = sigma(pair[1](inputs()))
    assert (predicted[:, 0] == 0).all()
    assert (predicted[:, 1:] >= LEAST * DEVIATION).all() and (predicted[:, 1:] <= MOST * DEVIATION).all()
    assert predicted[:, 1:].std() > 1e-4
    fresh = sigma(DPMesh(EMBEDDED).eval()(inputs()))
    torch.testing.assert_close(fresh[:, 1:], torch.full((3, 29), START * DEVIATION))


@torch.no_grad()
def test_a_batch_equals_its_samples(pair: tuple[DPMesh, DPMesh]):
    together = sigma(pair[1](inputs()))
    for i in range(3):
        torch.testing.assert_close(
            together[i : i + 1], sigma(pair[1](one(inputs(), i))), atol=1e-6, rtol=1e-4
        )


@torch.no_grad()
def test_it_reads_keypoints_image_and_prediction_but_no_invisible_coordinate(pair: tuple[DPMesh, DPMesh]):
    data = inputs()
    before = sigma(pair[1](data))
    far = torch.where(data.visible[..., None] > 0, data.joints, torch.full_like(data.joints, 777.0))
    torch.testing.assert_close(before, sigma(pair[1](replace(data, joints=far))))
    for changed in (
        replace(data, crop=1 - data.crop),
        replace(data, joints=data.joints * 0.9),
        replace(data, visible=torch.zeros_like(data.visible)),
    ):
        assert (sigma(pair[1](changed)) - before).abs().max() > 1e-4


@torch.no_grad()
def test_the_calibration_bends_and_moves_the_scale(pair: tuple[DPMesh, DPMesh]):
    head = pair[1].regressor.uncertainty
    assert head is not None
    log_scale = torch.randn(2, 30)
    plain = head.sigma(log_scale)
    torch.testing.assert_close(plain[:, 1:], DEVIATION * log_scale.exp()[:, 1:])
    try:
        head.get_buffer("offset").fill_(0.5)
        head.get_buffer("slope").fill_(2.0)
        torch.testing.assert_close(
            head.sigma(log_scale)[:, 1:], DEVIATION * (0.5 + 2 * log_scale).exp()[:, 1:]
        )
        assert {HEAD + "offset", HEAD + "slope"} <= set(pair[1].state_dict())
    finally:
        head.get_buffer("offset").zero_()
        head.get_buffer("slope").fill_(1.0)


def test_it_works_without_an_image_and_no_gradient_leaves_it():
    model = with_random_output(DPMesh(EMBEDDED))
    data = inputs(2)
    for with_image in (True, False):
        model.zero_grad()
        features = model.encode_image(data.crop, data.joints, data.visible) if with_image else None
        regression = model.regress(features, data.joints, data.visible)
        body = model.decode_parameters(regression, data.focal)
        joints = model.body.joints30_only(body.betas, body.rotations, body.transl)
        log_scale = model.regressor.predict_log_scale(regression, joints, joints[..., :2])
        assert log_scale is not None and torch.isfinite(log_scale).all()
        uncertainty_term(log_scale, joints, torch.randn(2, 30, 3), torch.ones(2, 30)).backward()
        for name, p in model.named_parameters():
            moved = p.grad is not None and bool(p.grad.any())
            assert not moved or name.startswith(HEAD), name
        grad = model.get_parameter(HEAD + "out").grad
        assert grad is not None and bool(grad[1:].any())


def test_an_impossible_width_is_refused():
    with pytest.raises(ConfigError, match="multiple of heads"):
        RegressorConfig(uncertainty=12)
    with pytest.raises(ConfigError, match="uncertainty=-8 must be between 0 and"):
        RegressorConfig(uncertainty=-8)
