"""How good weights are on held-out synthetic people: python benchmarks/accuracy.py [--weights embedded] [--people 1000]

The people's motions belong to the test split (other subjects and actions than in training), shapes, clothes,
cameras, occluders and keypoint noise come from another seed. Rows: the model; the model with every picture
blanked, or exchanged for the next person's (the keypoints are right, the picture is not); keypoints alone; and
a T-pose facing the camera. MPJPE and PA-MPJPE are over 14 Human3.6M joints, MPVE over all vertices, millimetres.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json

import numpy as np
import torch
from machine import commit, machine

from dpmesh.model import BodyParameters, DPMesh
from dpmesh.train.feed import Tensors
from dpmesh.train.validate import SEED, Figures, figures, held_out, predict


def t_pose(count: int) -> BodyParameters:
    upright = torch.diag(torch.tensor([1.0, -1.0, -1.0])).expand(count, 1, 3, 3)
    rest = torch.eye(3).expand(count, 23, 3, 3)
    return BodyParameters(
        torch.cat([upright, rest], 1), torch.zeros(count, 10), torch.zeros(count, 3), torch.zeros(0)
    )


def means(found: Figures, chosen: np.ndarray | None = None) -> dict[str, float]:
    return {
        name: round(float(v.mean() if chosen is None else v[chosen].mean()), 1) for name, v in found.items()
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
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = DPMesh.from_pretrained(options.weights)
    batch = held_out(options.people)
    blank = {**batch, "crop": torch.zeros_like(batch["crop"])}
    exchanged = {**batch, "crop": batch["crop"].roll(1, 0)}
    answers = {
        "model": predict(model, batch),
        "blank pictures": predict(model, blank),
        "exchanged pictures": predict(model, exchanged),
        "keypoints alone": predict(model, batch, images=False),
        "T-pose": t_pose(options.people),
    }
    errors = {name: figures(model.body, answer, batch) for name, answer in answers.items()}
    result = {
        "commit": commit(),
        "machine": machine(),
        "weights": options.weights,
        "people": options.people,
        "seed": SEED,
        "rows": {name: means(found) for name, found in errors.items()},
        "model by occlusion": {
            name: {"people": int(chosen.sum()), **means(errors["model"], chosen)}
            for name, chosen in subsets(batch).items()
        },
    }
    print(json.dumps(result, indent=1))
    if options.json:
        with open(options.json, "w") as file:
            file.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
