"""The codebook: nearest is nearest, the moving averages, dead codes."""

import torch

from dpmesh.pose_prior.vqvae import Codebook


def test_nearest_code_is_nearest(monkeypatch) -> None:
    monkeypatch.setattr("dpmesh.pose_prior.vqvae.ROWS", 7)  # several blocks
    book = Codebook(50, 4, 0.9, 0.0)
    book.codes.normal_(generator=torch.Generator().manual_seed(0))
    latents = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(book.nearest(latents), torch.cdist(latents, book.codes).argmin(-1))


def test_moving_averages() -> None:
    """uses ← γ uses + (1−γ) count, sums ← γ sums + (1−γ) Σ latents, code = sums / uses."""
    book = Codebook(2, 2, 0.75, 0.0)
    book.codes.copy_(torch.tensor([[0.0, 0.0], [10.0, 10.0]]))
    book.uses.copy_(torch.tensor([4.0, 2.0]))
    book.sums.copy_(book.codes * book.uses[:, None])
    latents = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [9.0, 10.0]]])
    book.train()(latents)
    assert torch.allclose(book.uses, torch.tensor([0.75 * 4 + 0.25 * 2, 0.75 * 2 + 0.25 * 1]))
    sums = torch.stack(
        (
            0.25 * torch.tensor([1.0, 2.0]),
            0.75 * torch.tensor([20.0, 20.0]) + 0.25 * torch.tensor([9.0, 10.0]),
        )
    )
    assert torch.allclose(book.sums, sums)
    assert torch.allclose(book.codes, sums / book.uses[:, None])


def test_evaluation_moves_nothing() -> None:
    book = Codebook(3, 2, 0.9, 5.0).eval()
    book.codes.normal_()
    before = {k: v.clone() for k, v in book.state_dict().items()}
    book(torch.randn(2, 4, 2))
    assert all(torch.equal(before[k], v) for k, v in book.state_dict().items())


def test_dead_codes_are_put_on_latents() -> None:
    book = Codebook(4, 2, 0.5, 0.5).train()
    book.codes.copy_(torch.tensor([[0.0, 0.0], [50.0, 0.0], [60.0, 0.0], [70.0, 0.0]]))
    book.uses.copy_(torch.tensor([8.0, 0.6, 8.0, 0.6]))
    book.sums.copy_(book.codes * book.uses[:, None])
    latents = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    book(latents)  # all twelve are nearest to code 0; 1 and 3 fall to 0.3 uses
    flat = latents.reshape(-1, 2)
    for dead in (1, 3):
        assert (flat == book.codes[dead]).all(-1).any() and book.uses[dead] == 1
        assert torch.equal(book.sums[dead], book.codes[dead])  # so the next average starts there
    assert torch.equal(book.codes[2], torch.tensor([60.0, 0.0])) and book.uses[2] == 4


def test_the_first_batch_fills_a_fresh_codebook() -> None:
    book = Codebook(8, 2, 0.99, 0.5).train()
    latents = torch.randn(4, 10, 2, generator=torch.Generator().manual_seed(0)) + 5
    codes, indices, _ = book(latents)
    assert indices.unique().numel() > 4 and (codes.detach() - latents).norm(dim=-1).mean() < 1
