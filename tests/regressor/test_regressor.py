"""The volume, the cascade and the token head: positions, batches, and which inputs matter."""

from dataclasses import replace

import pytest
import torch

from dpmesh.errors import ConfigError
from dpmesh.regressor.cascade import CascadeHead, Regressor, RegressorConfig, inverse_sigmoid
from dpmesh.regressor.lifter import Lifter
from dpmesh.regressor.tokens import TokenHead
from dpmesh.regressor.transformer import EncoderLayer, MultiHeadAttention, sine_position_1d, sine_position_2d
from dpmesh.regressor.volume import FeatureVolume

SMALL = RegressorConfig(
    fused_channels=12, width=16, heads=2, inner=24, encoder_layers=1, decoder_layers=3, volume_depth=4,
    volume_inner=24, volume_layers=1, pose_code=7, lifter=20, lifter_layers=1,
)  # fmt: skip
BARE = replace(SMALL, lifter=0)
NAMES = ("root_6d", "pose_code", "betas", "camera", "joints_img")


def some_keypoints(n: int) -> torch.Tensor:
    """Keypoints as fractions of the crop, some of them invisible."""
    return torch.cat([torch.rand(n, 30, 2), (torch.rand(n, 30, 1) < 0.7).float()], -1)


def some_readings(n: int) -> torch.Tensor:
    return torch.cat([torch.rand(n, 30, 2), torch.randn(n, 30, 1), torch.rand(n, 30, 1) + 0.1], -1)


def test_sampling_at_a_cell_gives_that_cell():
    volume = FeatureVolume(12, 16, 4, 2, 24, 1)
    features = torch.randn(1, 16, 4, 8, 8)
    z, y, x = 2, 5, 7
    exponent = float(volume.exponent.detach().clamp(1, 20))
    point = torch.tensor([[[x / 7, y / 7, (z / 3) ** (1 / exponent)]]])
    torch.testing.assert_close(
        volume.sample(features, point)[0, 0], features[0, :, z, y, x], atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("config", [SMALL, BARE], ids=["lifter", "paper"])
def test_joints_start_between_zero_and_one_and_gradients_reach_everything(config: RegressorConfig):
    torch.manual_seed(0)
    regressor = Regressor(config)
    regression = regressor(
        regressor.build_memory(torch.randn(2, 12, 8, 8)), some_keypoints(2), some_readings(2)
    )
    assert regression.joints_img.shape == (2, 15, 3)
    assert ((regression.joints_img > 0) & (regression.joints_img < 1)).all()
    torch.stack([getattr(regression, name).square().sum() for name in NAMES]).sum().backward()
    idle = [name for name, p in regressor.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # A key's bias shifts all scores of a query alike, so softmax gives it (almost) no gradient.
    assert [name for name in idle if not name.endswith(".k.bias")] == []


@pytest.mark.parametrize("config", [SMALL, BARE], ids=["lifter", "paper"])
def test_a_batch_equals_its_samples(config: RegressorConfig):
    torch.manual_seed(0)
    regressor = Regressor(config).eval()
    fused, keypoints, readings = torch.randn(3, 12, 8, 8), some_keypoints(3), some_readings(3)
    together = regressor(regressor.build_memory(fused), keypoints, readings)
    for i in range(3):
        one = slice(i, i + 1)
        alone = regressor(regressor.build_memory(fused[one]), keypoints[one], readings[one])
        for name in NAMES:
            torch.testing.assert_close(
                getattr(together, name)[one], getattr(alone, name), atol=1e-5, rtol=1e-4
            )


def test_without_an_image_the_lifter_regresses():
    torch.manual_seed(0)
    regressor = Regressor(SMALL).eval()
    regression = regressor(None, some_keypoints(2))
    assert (regression.root_6d[0] - regression.root_6d[1]).abs().max() > 0
    with pytest.raises(ConfigError, match="needs an image"):
        Regressor(BARE)(None, some_keypoints(2))


def test_the_decoder_refines_the_lifters_estimate():
    torch.manual_seed(0)
    regressor = Regressor(SMALL).eval()
    keypoints, readings = some_keypoints(2), some_readings(2)
    for head in (regressor.root_head, regressor.pose_head, regressor.shape_head, regressor.camera_head):
        for layer in head.layers:
            torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
    alone = regressor(None, keypoints, readings)
    refined = regressor(regressor.build_memory(torch.randn(2, 12, 8, 8)), keypoints, readings)
    for name in NAMES[:4]:
        torch.testing.assert_close(getattr(refined, name), getattr(alone, name))
    assert (refined.joints_img - alone.joints_img).abs().max() > 1e-4  # the joints it moves by itself


def test_the_lifter_ignores_coordinates_of_invisible_joints():
    torch.manual_seed(0)
    lifter = Lifter(30, 20, 1, 7, 15).eval()
    keypoints, readings = some_keypoints(2), some_readings(2)
    keypoints[:, 3, 2], readings[:, 5, 3] = 0, 0
    moved, elsewhere = keypoints.clone(), readings.clone()
    moved[:, 3, :2] += 0.3
    elsewhere[:, 5, :3] += 0.3
    for one, two in zip(lifter(keypoints, readings), lifter(moved, elsewhere), strict=True):
        assert torch.equal(one, two)
    moved[:, 4, :2] += 0.3
    moved[:, 4, 2] = keypoints[:, 4, 2] = 1
    assert not torch.equal(lifter(keypoints, readings).state, lifter(moved, readings).state)
    torch.testing.assert_close(lifter(keypoints, None), lifter(keypoints, torch.zeros_like(readings)))


def test_cascade_adds_up():
    one, two, start = torch.randn(2, 4), torch.randn(2, 4), torch.randn(2, 3)
    head = CascadeHead(4, 3, 2, has_start=False)
    first = head.layers[0](one)
    torch.testing.assert_close(head([one, two]), first + head.layers[1](torch.cat([two, first], -1)))
    head = CascadeHead(4, 3, 2, has_start=True)
    first = start + head.layers[0](torch.cat([one, start], -1))
    torch.testing.assert_close(head([one, two], start), first + head.layers[1](torch.cat([two, first], -1)))


def test_attention_is_torchs():
    """The same numbers as nn.MultiheadAttention with the same weights: an independent reference."""
    torch.manual_seed(0)
    ours, oracle = MultiHeadAttention(16, 4), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    parts = (ours.q, ours.k, ours.v)
    oracle.in_proj_weight.data = torch.cat([p.weight.data for p in parts])
    oracle.in_proj_bias.data = torch.cat([p.bias.data for p in parts])
    oracle.out_proj.load_state_dict(ours.out.state_dict())
    query, key, value = torch.randn(2, 5, 16), torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    torch.testing.assert_close(ours(query, key, value), oracle(query, key, value)[0], atol=1e-6, rtol=1e-5)


def test_position_tables():
    table = sine_position_1d(6, 4)
    torch.testing.assert_close(table[0], torch.tensor([0.0, 1, 0, 1, 0, 1]))
    torch.testing.assert_close(table[1, 0], torch.tensor(1.0).sin())
    flat = sine_position_2d(16, 8).view(8, 8, 16)
    assert torch.equal(flat[2, 1, :8], flat[2, 6, :8])  # the first half knows the row,
    assert torch.equal(flat[2, 1, 8:], flat[5, 1, 8:])  # the second the column
    assert not torch.equal(flat[2, 1], flat[1, 2])


def test_inverse_sigmoid():
    x = torch.tensor([-3.0, 0.0, 2.0])
    torch.testing.assert_close(inverse_sigmoid(torch.sigmoid(x)), x, atol=1e-4, rtol=1e-4)
    assert torch.isfinite(inverse_sigmoid(torch.tensor([0.0, 1.0]))).all()


def test_token_head_has_an_output_for_each_token():
    assert TokenHead(7, 5, 11, 4)(torch.randn(3, 7)).shape == (3, 5, 11)


def test_positions_are_in_queries_and_keys_but_not_in_values():
    torch.manual_seed(0)
    layer = EncoderLayer(16, 2, 24)
    x, place = torch.randn(1, 5, 16), torch.randn(1, 5, 16)
    with torch.no_grad():
        middle = layer.norm1(x + layer.attention(x + place, x + place, x))
        expected = layer.norm2(middle + layer.feed_forward(middle))
        torch.testing.assert_close(layer(x, place), expected)
        assert (layer(x, place) - layer(x, 2 * place)).abs().max() > 1e-3
