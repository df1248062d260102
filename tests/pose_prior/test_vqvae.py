"""The pose auto-encoder: rotations out, soft and hard decoding, gradients."""

import pytest
import roma
import torch

from dpmesh.errors import ConfigError
from dpmesh.pose_prior.vqvae import Mode, PoseVQVAE, PoseVQVAEConfig, rotation_from_6d, rotation_to_6d

SMALL = PoseVQVAEConfig(
    tokens=6, codes=20, code_width=5, encoder_width=8, encoder_layers=1, decoder_width=8, decoder_layers=1
)


@pytest.fixture
def model() -> PoseVQVAE:
    torch.manual_seed(0)
    model = PoseVQVAE(SMALL)
    model.codebook.codes.normal_()
    return model.eval()


def poses(n: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return roma.rotvec_to_rotmat(torch.randn(n, 21, 3, generator=generator) * 0.5)


def test_six_numbers_are_the_first_two_columns() -> None:
    rotations = poses()
    assert torch.allclose(rotation_from_6d(rotation_to_6d(rotations)), rotations, atol=1e-5)
    six = rotation_to_6d(rotations)[0, 0].view(3, 2)
    assert torch.equal(six[:, 1], rotations[0, 0, :, 1])


def test_decode_gives_rotations_and_still_hands(model: PoseVQVAE) -> None:
    out = model.decode(torch.randn(3, 6, 5) * 3)
    assert out.shape == (3, 23, 3, 3)
    assert torch.allclose(out @ out.mT, torch.eye(3).expand_as(out), atol=1e-5)
    assert torch.allclose(torch.linalg.det(out), torch.ones(3, 23), atol=1e-5)
    assert torch.equal(out[:, 21:], torch.eye(3).expand(3, 2, 3, 3))


def test_batch_equals_singles(model: PoseVQVAE) -> None:
    batch = model(poses())
    single = torch.cat([model(p[None]).rotations for p in poses()])
    assert torch.allclose(batch.rotations, single, atol=1e-5)


def decoded(model: PoseVQVAE, latent: torch.Tensor, mode: Mode) -> torch.Tensor:
    model.mode = mode
    return model.decode_latent(latent)


def test_confident_logits_decode_as_the_code_itself(model: PoseVQVAE) -> None:
    indices = model.tokens(poses())
    hard = model.decode(model.codebook.codes[indices])
    logits = 1e4 * torch.nn.functional.one_hot(indices, 20).float()
    for mode in ("soft", "straight_through"):
        assert torch.allclose(decoded(model, logits, mode), hard, atol=1e-5)
    assert torch.allclose(model(poses()).rotations, hard, atol=1e-5)


def test_soft_decoding_is_the_mean_code(model: PoseVQVAE) -> None:
    logits = torch.randn(2, 6, 20)
    mean = torch.einsum("btk,kd->btd", logits.softmax(-1), model.codebook.codes)
    assert torch.allclose(decoded(model, logits, "soft"), model.decode(mean), atol=1e-6)


def test_points_are_decoded_as_they_are_or_as_their_nearest_code(model: PoseVQVAE) -> None:
    points = torch.randn(2, 6, model.config.code_width, requires_grad=True)
    assert torch.equal(decoded(model, points, "points"), model.decode(points))
    snapped = decoded(model, points, "nearest")
    codes = model.codebook.codes[torch.cdist(points, model.codebook.codes).argmin(-1)]
    assert torch.allclose(snapped, model.decode(codes), atol=1e-5)
    (gradient,) = torch.autograd.grad(snapped[..., 0].sum(), points)
    assert gradient.abs().sum() > 0


def test_straight_through_decodes_the_best_code_with_the_gradient_of_the_mean(model: PoseVQVAE) -> None:
    gradients: list[torch.Tensor] = []
    hook = model.from_code.register_full_backward_pre_hook(lambda _m, g: gradients.append(g[0]))
    logits = torch.randn(2, 6, 20, requires_grad=True)
    out = decoded(model, logits, "straight_through")
    assert torch.allclose(out, model.decode(model.codebook.codes[logits.argmax(-1)]), atol=1e-5)
    (gradient,) = torch.autograd.grad(out[..., 0].sum(), logits)
    hook.remove()
    # The gradient at the codes, taken back through the softmax mean.
    at_codes = gradients[-1] @ model.from_code.weight
    other = logits.detach().requires_grad_()
    mean = other.softmax(-1) @ model.codebook.codes
    (expected,) = torch.autograd.grad((mean * at_codes).sum(), other)
    assert torch.allclose(gradient, expected, atol=1e-6) and gradient.abs().sum() > 0


def test_the_gradient_passes_the_quantiser_unchanged(model: PoseVQVAE) -> None:
    latents = torch.randn(2, 6, 5, requires_grad=True)
    codes, indices, commitment = model.quantise(latents)
    assert torch.allclose(codes, model.codebook.codes[indices], atol=1e-6)
    weights = torch.randn(2, 6, 5)
    (gradient,) = torch.autograd.grad((codes * weights).sum(), latents, retain_graph=True)
    assert torch.equal(gradient, weights)
    (gradient,) = torch.autograd.grad(commitment, latents)
    assert torch.allclose(gradient, 2 * (latents - codes).detach() / latents.numel(), atol=1e-6)


def test_tokens_never_move_the_codebook(model: PoseVQVAE) -> None:
    before = model.codebook.codes.clone()
    model.train().tokens(poses())
    assert torch.equal(before, model.codebook.codes)
    model.eval()(poses())
    assert torch.equal(before, model.codebook.codes)
    model.train()(poses())
    assert not torch.equal(before, model.codebook.codes)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError):
        PoseVQVAEConfig(tokens=0)
    with pytest.raises(ConfigError):
        PoseVQVAEConfig(joints=24)
    with pytest.raises(ConfigError):
        PoseVQVAEConfig(decay=1.0)
