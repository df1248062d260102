"""Accuracy of weights on held-out synthetic people.

    python -m benchmarks.accuracy.held_out [--weights embedded] [--people 1000]

The people's motions belong to the test split (other subjects and actions than in training). Shapes, clothes,
cameras, occluders and keypoint noise come from another seed. The rows are:

* the model; the model with test-time flip (`dpmesh predict --flip`); the keypoints alone; a T-pose facing the camera;
* the model with black images, and with the next person's images (correct keypoints, wrong image);
* the lifter alone with more ground truth: the true places of the detected keypoints, or of all joints inside the crop;
  true places, true depths or both instead of those that the backbone reads off the image;
* the model on as many other people whose motions are recorded motions of the training split, to separate failures on
  unfamiliar motions from failures on all.

--people-file FILE measures people that another commit's generator has drawn; that commit writes them with
    python -c "import torch; from dpmesh.train.validate import held_out; torch.save(dict(held_out(500)), 'people.pt')"

MPJPE and PA-MPJPE are over 14 Human3.6M joints, MPVE over all vertices, millimetres.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse

import numpy as np
import torch

from benchmarks.machine import report_result
from dpmesh.data.poses import PoseBank
from dpmesh.geometry import CROP
from dpmesh.inference.flip_test import FlipTest
from dpmesh.model import DPMesh
from dpmesh.train.dataloader import Tensors
from dpmesh.train.validate import SEED, Figures, figures, held_out, predict, rendered
from dpmesh.types import BodyParameters, Inputs, Prediction


def t_pose(count: int) -> BodyParameters:
    upright = torch.diag(torch.tensor([1.0, -1.0, -1.0])).expand(count, 1, 3, 3)
    rest = torch.eye(3).expand(count, 23, 3, 3)
    return BodyParameters(
        torch.cat([upright, rest], 1), torch.zeros(count, 10), torch.zeros(count, 3), torch.zeros(0)
    )


@torch.inference_mode()
def predict_flipped(model: DPMesh, batch: Tensors) -> BodyParameters:
    flip, predictions = FlipTest(model), list[Prediction]()
    for start in range(0, len(batch["focal"]), 16):
        part = {name: values[start : start + 16] for name, values in batch.items()}
        crop = part["crop"].permute(0, 3, 1, 2).float() / 255
        predictions.append(flip(Inputs(crop, part["joints"], part["visible"], part["focal"])))
    turns = [torch.cat([one.global_orient[:, None], one.body_rotations], 1) for one in predictions]
    betas, transl = (torch.cat([getattr(one, name) for one in predictions]) for name in ("betas", "transl"))
    return BodyParameters(torch.cat(turns), betas, transl, torch.zeros(0))


CONFIDENCE = 0.05  # of a good reading (JointReadings.confidence)


@torch.inference_mode()
def lifted(model: DPMesh, batch: Tensors, own: torch.Tensor) -> dict[str, BodyParameters]:
    """Predictions of the lifter with more or less of the ground truth. own: the readings of `read_off`."""
    inside = ((batch["joints2d"] >= 0) & (batch["joints2d"] < CROP)).all(-1).float()
    places = batch["joints2d"] / CROP
    depth = batch["joints3d"][..., 2:] - batch["joints3d"][:, :1, 2:]
    read = torch.cat([places, depth, torch.full_like(depth, CONFIDENCE)], -1)

    def lift(joints: torch.Tensor, visible: torch.Tensor, read: torch.Tensor | None) -> BodyParameters:
        regressed = model.regress(None, joints * visible[..., None], visible, read)
        return model.decode_parameters(regressed, batch["focal"])

    def lift_read(read: torch.Tensor) -> BodyParameters:
        return lift(batch["joints"], batch["visible"], read)

    return {
        "true places of the given keypoints": lift(batch["joints2d"], batch["visible"], None),
        "true places of all joints inside": lift(batch["joints2d"], inside, None),
        "places and depths as read, lifter alone": lift_read(own),
        "places as read, true depths": lift_read(torch.cat([own[..., :2], depth, own[..., 3:]], -1)),
        "true places, depths as read": lift_read(torch.cat([places, own[..., 2:]], -1)),
        "true places and depths read": lift_read(read),
    }


@torch.inference_mode()
def read_off(model: DPMesh, batch: Tensors) -> torch.Tensor:
    """(n, 30, 4): what the backbone reads off each image (JointReadings.summary)."""
    read: list[torch.Tensor] = []
    for start in range(0, len(batch["focal"]), 16):
        part = {name: values[start : start + 16] for name, values in batch.items()}
        crop = part["crop"].permute(0, 3, 1, 2).float() / 255
        readings = model.encode_image(crop, part["joints"], part["visible"]).readings
        assert readings is not None  # the embedded model reads
        read.append(readings.summary())
    return torch.cat(read)


def reading(batch: Tensors, own: torch.Tensor) -> dict[str, float]:
    """Median errors of the input keypoints and of the readings, for joints inside the crop, in crop pixels; and of the
    read depths relative to the pelvis, mm."""
    inside = ((batch["joints2d"] >= 0) & (batch["joints2d"] < CROP)).all(-1)
    off, detected_off = (
        (places - batch["joints2d"]).norm(dim=-1) for places in (own[..., :2] * CROP, batch["joints"])
    )
    deep = 1000 * (own[..., 2] - batch["joints3d"][..., 2] + batch["joints3d"][:, :1, 2]).abs()
    uncovered, detected = batch["joint_visible"] > 0, batch["visible"] > 0
    rows = {
        "given keypoints": detected_off[detected & inside],
        "read, in sight": off[uncovered & inside],
        "read, hidden": off[~uncovered & inside],
        "depth read, in sight, mm": deep[uncovered & inside],
        "depth read, hidden, mm": deep[~uncovered & inside],
    }
    return {name: round(float(values.median()), 1) for name, values in rows.items()}


def means(errors: Figures, chosen: np.ndarray | None = None) -> dict[str, float]:
    return {
        name: round(float(v.mean() if chosen is None else v[chosen].mean()), 1) for name, v in errors.items()
    }


def subsets(batch: Tensors) -> dict[str, np.ndarray]:
    """By the share of the 17 main joints that are outside the crop or covered."""
    main = [0, 1, 2, 4, 5, 7, 8, 12, 16, 17, 18, 19, 20, 21, 24, 27, 28]
    hidden = 1 - batch["joint_visible"][:, main].mean(1).numpy()
    return {
        "hidden < 20 %": hidden < 0.2,
        "hidden 20-50 %": (hidden >= 0.2) & (hidden < 0.5),
        "hidden >= 50 %": hidden >= 0.5,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument(
        "--people-file", metavar="FILE", help="people that were drawn before, instead of new ones"
    )
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = DPMesh.from_pretrained(options.weights)
    batch = (
        torch.load(options.people_file, weights_only=True)
        if options.people_file
        else held_out(options.people)
    )
    people = len(batch["focal"])
    blank = {**batch, "crop": torch.zeros_like(batch["crop"])}
    exchanged = {**batch, "crop": batch["crop"].roll(1, 0)}
    own = read_off(model, batch)
    predictions = {
        "model": predict(model, batch),
        "model, flip test": predict_flipped(model, batch),
        "blank pictures": predict(model, blank),
        "exchanged pictures": predict(model, exchanged),
        "keypoints alone": predict(model, batch, images=False),
        **lifted(model, batch, own),
        "T-pose": t_pose(people),
    }
    errors = {name: figures(model.body, prediction, batch) for name, prediction in predictions.items()}
    if not options.people_file:
        familiar = rendered(PoseBank.load("train"), people)
        errors["model, motions of the training"] = figures(model.body, predict(model, familiar), familiar)
    result = {
        "weights": options.weights,
        "people": people,
        "drawn": options.people_file or f"seed {SEED}",
        "read, off": reading(batch, own),
        "rows": {name: means(errors_of) for name, errors_of in errors.items()},
        "model by occlusion": {
            name: {"people": int(chosen.sum()), **means(errors["model"], chosen)}
            for name, chosen in subsets(batch).items()
        },
    }
    report_result(result, options.json)


if __name__ == "__main__":
    main()
