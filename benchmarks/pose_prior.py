"""What the pose prior gives back of poses that it has not seen, and how much of its codebook it uses.

    python benchmarks/pose_prior.py [--prior DIR] [--json]

MPJPE: nearest codes, mean over frames and SMPL's 24 joints relative to the pelvis, mm, on the free body.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch

from dpmesh.assets import sha256, shipped
from dpmesh.data.poses import TEST_SUBJECT, PoseBank
from dpmesh.pose_prior.files import load_prior
from dpmesh.train.prior import evaluate_prior, rest_joints

DECODING = ("from_code", "token_place", "to_joints", "decoder", "joint_out")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prior", type=Path, help="folder of a prior; the shipped one without")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, rest, test = load_prior(arguments.prior), rest_joints(), PoseBank.load("test")
    subject = tuple(name.startswith(TEST_SUBJECT) for name in test.names)
    parts = {
        "held-out subject 03": test.select(subject),
        "held-out actions": test.select(tuple(not s for s in subject)),
        "whole test split": test,
    }
    scores = {name: dataclasses.asdict(evaluate_prior(model, bank, rest)) for name, bank in parts.items()}
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
        "poses_sha256": sha256(shipped("poses/poses.npz")),
    }
    if arguments.json:
        print(json.dumps({"scores": scores, **sizes}, indent=1))
        return
    print(f"{'':22s}{'frames':>8s}{'MPJPE mm':>10s}{'worst 10 %':>12s}{'codebook use':>14s}")
    for name, s in scores.items():
        print(
            f"{name:22s}{s['frames']:8d}{s['mpjpe_mm']:10.1f}{s['worst_tenth_mm']:12.1f}{s['code_use']:14.1%}"
        )
    print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in sizes.items()))


if __name__ == "__main__":
    main()
