"""VPoser's decoder: rotations, hands at rest, the layers of the public package."""

import torch

from dpmesh.pose_prior.vposer import VPoserConfig, VPoserDecoder


@torch.no_grad()
def test_it_decodes_to_rotations_with_hands_at_rest():
    torch.manual_seed(0)
    decoder = VPoserDecoder(VPoserConfig())
    rotations = decoder.decode_latent(torch.randn(3, 32))
    assert rotations.shape == (3, 23, 3, 3)
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(3, 23, 3, 3), atol=1e-5, rtol=0)
    assert torch.equal(rotations[:, 21:], torch.eye(3).expand(3, 2, 3, 3))
    assert (rotations[0, :21] - rotations[1, :21]).abs().max() > 1e-3
    shapes = {name: tuple(p.shape) for name, p in decoder.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "bodyprior_dec_fc1.weight": (512, 32),
        "bodyprior_dec_fc2.weight": (512, 512),
        "bodyprior_dec_out.weight": (126, 512),
    }
