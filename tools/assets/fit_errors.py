"""Measures how the model's errors hang together: the covariance in src/dpmesh/shipped/errors/errors.npz.

    python -m tools.assets.fit_errors [--people 960] [--weights embedded] [--out FILE]

People of the training's generator (motions of the train split, a seed of their own) are predicted in two passes, in
turns with the shipped detector's keypoints in the ground-truth box and with the noise model's. The error of each
parameter (rotation vectors in each joint's frame, betas, translation) is divided by its spread (inference/refine.py),
and the mean of the products is written. RIDGE on the diagonal keeps what never errs, as the hands, invertible.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from dpmesh.assets import SHIPPED
from dpmesh.body.files import population_body
from dpmesh.data.poses import PoseBank
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.geometry import CROP
from dpmesh.geometry.rotations import axis_angle, rotation_matrix
from dpmesh.inference.detector import Detector
from dpmesh.inference.flip_test import FlipTest
from dpmesh.inference.preprocess import MIN_DETECTED
from dpmesh.inference.refine import spreads
from dpmesh.io import atomic_write
from dpmesh.model import DPMesh
from dpmesh.train.dataloader import Tensors, as_tensors
from dpmesh.train.validate import Recorded
from dpmesh.types import Inputs

SEED, RIDGE, BATCH, REACH = 77, 0.05, 16, 1.2


def detected(detector: Detector, people: Tensors, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(30, 2) keypoints in crop px, and (30,) 1 where visible, of the detector in the box of the joints inside."""
    joints = people["joints2d"][row]
    inside = joints[((joints >= 0) & (joints < CROP)).all(-1)]
    low, high = (
        (inside.amin(0), inside.amax(0))
        if len(inside) > 1
        else (joints.new_zeros(2), joints.new_full((2,), CROP))
    )
    middle, half = (low + high) / 2, ((high - low) / 2 * REACH).clamp(min=4)
    box = torch.cat([middle - half, middle + half]).clamp(0, CROP).numpy().astype(np.float32)
    keypoints = torch.from_numpy(
        detector.keypoints_in_boxes(people["crop"][row].numpy(), box[None])[0].keypoints30
    )
    visible = (keypoints[:, 2] > MIN_DETECTED) & ((keypoints[:, :2] >= 0) & (keypoints[:, :2] < CROP)).all(1)
    return keypoints[:, :2] * visible[:, None], visible.float()


@torch.no_grad()
def errors(weights: str, count: int) -> Float[NDArray[np.float64], "n 85"]:
    """Of people in two passes, in units of spreads."""
    people = SyntheticPeople(SEED, Recorded(PoseBank.load("train")), population_body())
    model, detector = FlipTest(DPMesh.from_pretrained(weights)), Detector(rotated_detection=False)
    rows = list[torch.Tensor]()
    for start in range(0, count, BATCH):
        batch = as_tensors(people.batch(start, BATCH))
        joints, visible = batch["joints"].clone(), batch["visible"].clone()
        for row in range(0, BATCH, 2):
            joints[row], visible[row] = detected(detector, batch, row)
        crop = batch["crop"].permute(0, 3, 1, 2).float() / 255
        p = model(Inputs(crop, joints, visible, batch["focal"]))
        predicted = torch.cat([p.global_orient[:, None], p.body_rotations], 1)
        turns = axis_angle(predicted.mT @ rotation_matrix(batch["pose"])).flatten(1)
        off = torch.cat([turns, batch["betas"] - p.betas, batch["transl"] - p.transl], 1)
        rows.append(off / spreads(p.betas, p.joint_sigma))
        print(f"{start + BATCH} of {count} people", flush=True)
    return torch.cat(rows).double().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=int, default=960)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--out", type=Path, default=SHIPPED / "errors" / "errors.npz")
    options = parser.parse_args()
    torch.set_num_threads(1)
    off = errors(options.weights, options.people)
    covariance = off.T @ off / len(off) + RIDGE * np.eye(off.shape[1])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, covariance=covariance.astype(np.float32))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(options.out, buffer.getvalue())


if __name__ == "__main__":
    main()
