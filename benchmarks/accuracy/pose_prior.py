"""Reconstruction error of the pose prior on held-out poses, and the share of its codebook that it uses.

    python -m benchmarks.accuracy.pose_prior [--prior DIR] [--poses FILE --held-out PREFIX ...] [--fit 64] [--json]

Mean over frames and SMPL's 24 joints relative to the pelvis, mm, on the free body, of three ways through the codes:
nearest, the code nearest to each latent; soft, a mixture of codes by their distances, as a model of token_mode "soft"
decodes one (512 frames); fitted, the mixture whose weights are fitted to the pose itself (--fit frames): the
lowest error that such a model can reach. Measured on the shipped test
split, or with --poses on the clips that --held-out names.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch

from benchmarks.machine import commit, machine
from dpmesh.assets import sha256, shipped
from dpmesh.data.poses import TEST_SUBJECT, PoseBank, held_out, refuse_unmatched
from dpmesh.errors import DPMeshError
from dpmesh.pose_prior.files import load_prior
from dpmesh.train.objectives.vqvae import evaluate_prior, evenly_spaced, fitted_mixtures, rest_joints

DECODING = ("from_code", "token_place", "to_joints", "decoder", "joint_out")


def banks(poses: Path | None, prefixes: list[str]) -> dict[str, PoseBank]:
    """What is measured, by its name in the table."""
    test = PoseBank.load("test", poses) if poses is None else PoseBank.read(poses)
    if poses is not None:
        refuse_unmatched(test.names, prefixes, "--held-out")
        return {"held-out clips": test.select(held_out(test.names, prefixes))}
    subject = tuple(name.startswith(TEST_SUBJECT) for name in test.names)
    return {
        "held-out subject 03": test.select(subject),
        "held-out actions": test.select(tuple(not s for s in subject)),
        "whole test split": test,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prior", type=Path, help="folder of a prior; the shipped one without")
    parser.add_argument("--poses", type=Path, help="a pose file of your own; the shipped test split without")
    parser.add_argument("--held-out", nargs="*", default=[], metavar="PREFIX", help="of its clips' names")
    parser.add_argument("--fit", type=int, default=0, metavar="FRAMES", help="fit mixtures to as many poses")
    parser.add_argument("--steps", type=int, default=60, help="of that fit")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        model, parts = load_prior(arguments.prior), banks(arguments.poses, arguments.held_out)
    except DPMeshError as error:
        parser.error(" ".join(str(error).split()))
    rest = rest_joints()
    scores = {name: dataclasses.asdict(evaluate_prior(model, bank, rest)) for name, bank in parts.items()}
    for name, bank in parts.items() if arguments.fit else ():
        some = evenly_spaced(bank, arguments.fit)
        scores[name]["fitted_mm"] = fitted_mixtures(model, some, rest, arguments.steps)
    decoding = sum(p.numel() for n, p in model.named_parameters() if n.startswith(DECODING))
    logits = torch.zeros(1, model.config.tokens, model.config.codes)
    with torch.no_grad():
        model.decode_latent(logits)
        start = time.perf_counter()
        for _ in range(20):
            model.decode_latent(logits)
    sizes = {
        "encoder_parameters": sum(p.numel() for p in model.parameters()) - decoding,
        "decoder_parameters": decoding,
        "codebook_numbers": model.codebook.codes.numel(),
        "decode_one_ms": (time.perf_counter() - start) * 50,
        "poses_sha256": sha256(arguments.poses or shipped("poses/poses.npz")),
    }
    if arguments.json:
        print(json.dumps({"commit": commit(), "machine": machine(), "scores": scores, **sizes}, indent=1))
        return
    print(
        f"{'':22s}{'frames':>8s}{'nearest mm':>12s}{'worst 10 %':>12s}{'codebook use':>14s}"
        f"{'soft mm':>9s}{'fitted mm':>11s}"
    )
    for name, s in scores.items():
        print(
            f"{name:22s}{s['frames']:8d}{s['mpjpe_mm']:12.1f}{s['worst_tenth_mm']:12.1f}{s['code_use']:14.1%}"
            f"{s['soft_mm']:9.1f}" + (f"{s['fitted_mm']:11.2f}" if "fitted_mm" in s else f"{'–':>11s}")
        )
    print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in sizes.items()))


if __name__ == "__main__":
    main()
