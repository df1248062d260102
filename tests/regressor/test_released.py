"""The regressor against an independent, slow implementation of the released one.

Sequence first, torch's own multi-head attention, loops: nothing shared with the package but the weights.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpmesh.config import EMBEDDED, PAPER, RELEASE
from dpmesh.regressor.cascade import CascadeHead, Regressor, inverse_sigmoid
from dpmesh.regressor.transformer import DecoderLayer, EncoderLayer, MultiHeadAttention, sine_position_2d

WIDTH, HEADS, DEPTH, FUSED = 16, 2, 8, 12
SMALL = replace(
    RELEASE.regressor, fused_channels=FUSED, width=WIDTH, heads=HEADS, inner=24, volume_inner=20, pose_code=5
)


@pytest.fixture(scope="module")
def regressor() -> Regressor:
    torch.manual_seed(0)
    regressor = Regressor(SMALL).eval()
    for name, p in regressor.named_parameters():
        if name != "volume.exponent":
            nn.init.normal_(p, mean=float("norm" in name and "weight" in name), std=0.3)
    return regressor


@pytest.fixture(scope="module")
def fused() -> Tensor:
    return torch.randn(2, FUSED, 8, 8, generator=torch.Generator().manual_seed(1))


def run(regressor: Regressor, fused: Tensor):
    with torch.no_grad():
        return regressor(regressor.build_memory(fused), torch.zeros(len(fused), 30, 3))


def attend(layer: MultiHeadAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(n, b, c), by torch."""
    weight = torch.cat([layer.q.weight, layer.k.weight, layer.v.weight])
    bias = torch.cat([layer.q.bias, layer.k.bias, layer.v.bias])
    return F.multi_head_attention_forward(
        query, key, value, WIDTH, HEADS, weight, bias, None, None, False, 0.0, layer.out.weight, layer.out.bias,
        training=False, need_weights=False,
    )[0]  # fmt: skip


def feed(layer: EncoderLayer | DecoderLayer, x: Tensor) -> Tensor:
    first, _, second = layer.feed_forward
    return F.linear(F.relu(F.linear(x, first.weight, first.bias)), second.weight, second.bias)


def normed(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, (WIDTH,), layer.weight, layer.bias, 1e-5)


def encode(layer: EncoderLayer, x: Tensor, position: Tensor) -> Tensor:
    x = normed(layer.norm1, x + attend(layer.attention, x + position, x + position, x))
    return normed(layer.norm2, x + feed(layer, x))


def table_1d(count: int) -> Tensor:
    rows = [[place / 10000 ** (2 * (i // 2) / WIDTH) for i in range(WIDTH)] for place in range(count)]
    return torch.tensor([[math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(row)] for row in rows])


SINES = (0.70711, 1.0, 0.70711, 0.0, -0.70711, -1.0, -0.70711, 0.0)
COSINES = (0.70711, 0.0, -0.70711, -1.0, -0.70711, 0.0, 0.70711, 1.0)
"""Sines of one to eight eighths of a turn: the released table's values of the eight rows or columns."""


def table_2d() -> Tensor:
    """Two numbers an axis, y's and then x's, each repeated over its half of the channels."""
    rows = [[SINES[y], COSINES[y]] * 4 + [SINES[x], COSINES[x]] * 4 for y in range(8) for x in range(8)]
    return torch.tensor(rows)


def logit(x: Tensor) -> Tensor:
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=1e-5) / (1 - x).clamp(min=1e-5))


def dense_volume(r: Regressor, fused: Tensor) -> Tensor:
    v = r.volume
    lifted = F.conv2d(fused, v.lift.weight, v.lift.bias).view(-1, WIDTH, DEPTH, 8, 8)  # channel = c * 8 + d
    exponent = float(v.exponent.detach().clamp(1, 20))
    places = torch.zeros(1, 3, DEPTH, 8, 8)
    for i in range(8):
        places[0, 0, i] = (i / 8) ** exponent
        places[0, 1, :, i] = i / 8
        places[0, 2, :, :, i] = i / 8
    joined = torch.cat([lifted, places.expand(len(fused), -1, -1, -1, -1)], 1)
    mixed = torch.einsum("oc,bcdhw->bodhw", v.mix.weight[:, :, 0, 0, 0], joined)
    mixed = mixed + v.mix.bias[:, None, None, None]
    tokens = mixed.flatten(2).permute(2, 0, 1)  # (d h w) b c
    for layer in v.layers:
        tokens = encode(layer, tokens, table_1d(512)[:, None])
    return normed(v.norm, tokens).permute(1, 2, 0).reshape(len(fused), WIDTH, DEPTH, 8, 8)


def expected_answer(r: Regressor, fused: Tensor) -> dict[str, Tensor]:
    batch = len(fused)
    volume = dense_volume(r, fused)
    position = table_2d()[:, None].expand(-1, batch, -1)
    memory = F.linear(fused.flatten(2).permute(2, 0, 1), r.down.weight, r.down.bias)
    for layer in r.encoder:
        memory = encode(layer, memory, position)  # no norm behind the last
    body, joint = r.query_content
    x = torch.cat([body.expand(3, batch, -1), joint.expand(15, batch, -1)])
    query = r.query_position[:, None]
    hidden: list[Tensor] = []
    placed = torch.zeros(0)
    for i, layer in enumerate(r.decoder):
        x = normed(layer.norm1, x + attend(layer.self_attention, x + query, x + query, x))
        x = normed(layer.norm2, x + attend(layer.cross_attention, x + query, memory + position, memory))
        x = normed(layer.norm3, x + feed(layer, x))
        x = normed(r.norm, x)  # and this is what the next layer sees
        hidden.append(x)
        joint_tokens = x[3:].transpose(0, 1)
        if i == 0:
            placed = torch.sigmoid(r.joint_place[0](joint_tokens))
        else:
            placed = torch.sigmoid(
                logit(placed) + r.joint_place[i](torch.cat([joint_tokens, logit(placed)], -1))
            )
        bent = placed[..., 2:] ** r.volume.exponent.clamp(1, 20)
        grid = torch.cat([placed[..., :2], bent], -1) * 2 - 1
        sampled = F.grid_sample(volume, grid[:, None, None], mode="bilinear", align_corners=True)
        first, norm, _, second = r.place_position
        code = second(F.relu(normed(norm, first(logit(placed)))))
        memory = torch.cat([memory[:64], sampled[:, :, 0, 0].permute(2, 0, 1)])
        position = torch.cat([position[:64], code.transpose(0, 1)])
        assert len(memory) == 79

    def cascade(head: CascadeHead, token: int) -> Tensor:
        out = head.layers[0](hidden[0][token])
        for layer, h in zip(list(head.layers)[1:], hidden[1:], strict=True):
            out = out + layer(torch.cat([h[token], out], -1))
        return out

    return {
        "root_6d": cascade(r.root_head, 0),
        "pose_code": cascade(r.pose_head, 0),
        "betas": cascade(r.shape_head, 1),
        "camera": cascade(r.camera_head, 2),
        "joints_img": placed,
    }


@pytest.mark.parametrize("exponent", [3.0, 0.5, 25.0])
def test_the_whole_regressor(regressor: Regressor, fused: Tensor, exponent: float):
    """An exponent outside [1, 20] counts as the nearer end."""
    with torch.no_grad():
        regressor.volume.exponent.fill_(exponent)
        expected = expected_answer(regressor, fused)
    regression = run(regressor, fused)
    for name, value in expected.items():
        torch.testing.assert_close(getattr(regression, name), value, atol=2e-4, rtol=1e-4)


def test_the_volume(regressor: Regressor, fused: Tensor):
    with torch.no_grad():
        regressor.volume.exponent.fill_(3.0)
        torch.testing.assert_close(
            regressor.build_memory(fused).volume, dense_volume(regressor, fused), atol=1e-5, rtol=1e-4
        )


def test_the_normed_output_feeds_the_next_layer(regressor: Regressor, fused: Tensor):
    entered: list[Tensor] = []
    left: list[Tensor] = []

    def keep(_layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        entered.append(arguments[0])
        left.append(output)

    handles = [layer.register_forward_hook(keep) for layer in regressor.decoder]
    try:
        run(regressor, fused)
    finally:
        for handle in handles:
            handle.remove()
    assert len(entered) == 4
    for before, after in zip(left, entered[1:], strict=False):
        torch.testing.assert_close(after, normed(regressor.norm, before))
        assert (after - before).abs().max() > 0.1


def test_the_inverse_sigmoid_holds_both_odds_above_a_hundred_thousandth():
    """ln(1e-5) = -11.51293; ln(1e-4 / 0.9999) = -9.21024."""
    values = inverse_sigmoid(torch.tensor([0.0, 1e-4, 0.25, 0.5, 0.75, 1.0]))
    expected = torch.tensor([-11.51293, -9.21024, -1.09861, 0.0, 1.09861, 11.51293])
    torch.testing.assert_close(values, expected, atol=1e-4, rtol=0)


def test_queries_of_the_body_share_one_start_and_those_of_the_joints_another(regressor: Regressor):
    assert regressor.query_content.shape == (2, WIDTH) and regressor.query_position.shape == (18, WIDTH)


def test_every_pair_of_channels_of_the_2d_table_has_the_same_period():
    """128 channels an axis, but only two numbers: the exponent of the released period is 0 for all of them."""
    values = sine_position_2d(256, 8, "released")
    assert values.shape == (64, 256)
    torch.testing.assert_close(
        values[:, 0::2][:, :64],
        torch.tensor(SINES).repeat_interleave(8)[:, None].expand(64, 64),
        atol=1e-5,
        rtol=0,
    )
    torch.testing.assert_close(
        values[:, 1::2][:, :64],
        torch.tensor(COSINES).repeat_interleave(8)[:, None].expand(64, 64),
        atol=1e-5,
        rtol=0,
    )
    torch.testing.assert_close(
        values[:, 0::2][:, 64:], torch.tensor(SINES).repeat(8)[:, None].expand(64, 64), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        values[:, 1::2][:, 64:], torch.tensor(COSINES).repeat(8)[:, None].expand(64, 64), atol=1e-5, rtol=0
    )


def test_the_default_table_is_detrs():
    """Row 1 of 8 has the angle pi / 4; the last pair of 4 has the period 10000 ** (6 / 8) = 1000."""
    values = sine_position_2d(16, 8, "detr")[0]
    expected = [0.70711, 0.70711, 0.0784591, 0.9969173, 0.0078539, 0.9999692, 0.00078540, 0.9999997]
    torch.testing.assert_close(values, torch.tensor(expected * 2), atol=1e-5, rtol=0)
    assert RELEASE.regressor.position_table == "released"
    assert PAPER.regressor.position_table == EMBEDDED.regressor.position_table == "detr"


def test_sizes_of_the_released_regressor():
    assert PAPER.regressor == replace(RELEASE.regressor, pose_code=256, position_table="detr")
    config = RELEASE.regressor
    assert (config.width, config.heads, config.inner, config.encoder_layers, config.decoder_layers) == (
        256,
        8,
        2048,
        2,
        4,
    )
    assert (config.volume_depth, config.volume_inner, config.volume_layers, config.joints) == (8, 1024, 2, 15)
    assert (config.fused_channels, config.pose_code, config.lifter) == (2048, 32, 0)
