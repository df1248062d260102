"""The volume, the cascade and the token head: places, broadcasting, what looks at what."""

import pytest
import torch

from dpmesh.errors import ConfigError
from dpmesh.regressor.cascade import CascadeHead, Regressor, RegressorConfig, inverse_sigmoid
from dpmesh.regressor.tokens import TokenHead
from dpmesh.regressor.transformer import EncoderLayer, MultiHeadAttention, sine_position_1d, sine_position_2d
from dpmesh.regressor.volume import FeatureVolume

SMALL = RegressorConfig(
    fused_channels=12, width=16, heads=2, inner=24, encoder_layers=1, decoder_layers=3, volume_depth=4,
    volume_inner=24, volume_layers=1, pose_code=7, prompt_memory=True, prompt_layers=1, prompt_width=10,
)  # fmt: skip


def test_sampling_at_a_cell_gives_that_cell():
    volume = FeatureVolume(12, 16, 4, 2, 24, 1)
    features = torch.randn(1, 16, 4, 8, 8)
    z, y, x = 2, 5, 7
    exponent = float(volume.exponent.detach().clamp(1, 20))
    point = torch.tensor([[[x / 7, y / 7, (z / 3) ** (1 / exponent)]]])
    torch.testing.assert_close(
        volume.sample(features, point)[0, 0], features[0, :, z, y, x], atol=1e-5, rtol=1e-4
    )


def test_joints_start_between_zero_and_one_and_gradients_reach_everything():
    torch.manual_seed(0)
    regressor = Regressor(SMALL)
    answer = regressor(regressor.remember(torch.randn(2, 12, 8, 8)), torch.randn(2, 30, 10))
    assert answer.joints_img.shape == (2, 15, 3)
    assert ((answer.joints_img > 0) & (answer.joints_img < 1)).all()
    total = sum(
        t.square().sum()
        for t in (answer.root_6d, answer.pose_code, answer.betas, answer.camera, answer.joints_img)
    )
    assert isinstance(total, torch.Tensor)
    total.backward()
    idle = [name for name, p in regressor.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # A key's bias shifts all scores of a query alike, so softmax gives it (almost) no gradient.
    assert [name for name in idle if not name.endswith(".k.bias")] == []


def test_a_batch_equals_its_samples():
    torch.manual_seed(0)
    regressor = Regressor(SMALL).eval()
    fused, prompt = torch.randn(3, 12, 8, 8), torch.randn(3, 30, 10)
    together = regressor(regressor.remember(fused), prompt)
    for i in range(3):
        alone = regressor(regressor.remember(fused[i : i + 1]), prompt[i : i + 1])
        for name in ("root_6d", "pose_code", "betas", "camera", "joints_img"):
            torch.testing.assert_close(
                getattr(together, name)[i : i + 1], getattr(alone, name), atol=1e-5, rtol=1e-4
            )


def test_without_a_picture_only_the_prompt_decides():
    torch.manual_seed(0)
    regressor = Regressor(SMALL).eval()
    prompt = torch.randn(2, 30, 10)
    answer = regressor(None, prompt)
    assert (answer.root_6d[0] - answer.root_6d[1]).abs().max() > 0
    blind = Regressor(
        RegressorConfig(fused_channels=12, width=16, heads=2, inner=24, volume_inner=24, volume_depth=2)
    )
    with pytest.raises(ConfigError, match="nothing to look at"):
        blind(None, prompt)


def test_cascade_adds_up():
    head = CascadeHead(4, 3, 2)
    one, two = torch.randn(2, 4), torch.randn(2, 4)
    first = head.layers[0](one)
    torch.testing.assert_close(head([one, two]), first + head.layers[1](torch.cat([two, first], -1)))


def test_attention_is_torchs():
    """The same numbers as nn.MultiheadAttention with the same weights: an oracle that we did not write."""
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


def test_token_head_gives_logits_for_each_token():
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
