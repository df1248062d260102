"""Spread of stature and girth: predicted shapes of held-out rendered people against their true ones.

    python -m benchmarks.accuracy.shape_spread [--weights embedded] [--people 400] [--looks FILE]

stature: height of the rest-pose mesh; waist: a tape round the trunk there, at one place of the mesh. For each

* r: correlation of predicted and true;
* slope: of the predicted over the true by least squares; 1 where shape is regressed, 0 where it is the mean's;
* spread: standard deviation of the predicted over that of the true;
* error: mean absolute error, mm, and that of the mean shape of these people, which looks at no image;
* tall, short, heavy, thin: mean error in the true value's upper and lower tenth, mm; negative is too small.

The model sees crops and the noise model's keypoints; `--keypoints`: no image. Rendered people are not photographs: the
figures say how far the model pulls to the mean, not how well it measures people.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import report_result
from dpmesh.body.files import BodyArrays, population_body
from dpmesh.data.poses import PoseBank
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.model import DPMesh
from dpmesh.train.dataloader import as_tensors
from dpmesh.train.validate import SEED, Recorded, predict

WAIST, TRUNK = 0.06, 0.3
"""Metres above the pelvis in the mean shape; half the width within which that is the trunk."""
Values = NDArray[np.float64]


def measures(body: BodyArrays, betas: Values) -> dict[str, Values]:
    """stature and waist of each shape (n, 10), mm."""
    template = body.v_template.astype(np.float64)
    edges = np.unique(
        np.sort(np.concatenate([body.faces[:, p] for p in ([0, 1], [1, 2], [2, 0])]), 1), axis=0
    )
    heights = template[edges, 1] - WAIST
    across = (heights[:, 0] * heights[:, 1] < 0) & (np.abs(template[edges, 0]) < TRUNK).all(1)
    edges, heights = edges[across], heights[across]
    share = (heights[:, 0] / (heights[:, 0] - heights[:, 1]))[:, None]
    stature, waist = np.empty(len(betas)), np.empty(len(betas))
    for row, one in enumerate(betas):
        mesh = template + body.shapedirs @ one
        stature[row] = np.ptp(mesh[:, 1])
        ring = mesh[edges[:, 0]] * (1 - share) + mesh[edges[:, 1]] * share
        hull = cv2.convexHull(ring[:, [0, 2]].astype(np.float32))
        waist[row] = cv2.arcLength(hull, True)
    return {"stature": 1000 * stature, "waist": 1000 * waist}


def compared(predicted: Values, true: Values, names: tuple[str, str]) -> dict[str, float]:
    """The figures of one measure; names of the upper and the lower tenth."""
    error, (low, high) = predicted - true, np.quantile(true, (0.1, 0.9))
    return {
        "true mean": float(true.mean()),
        "true sd": float(true.std()),
        "r": float(np.corrcoef(predicted, true)[0, 1]),
        "slope": float(np.polyfit(true, predicted, 1)[0]),
        "spread": float(predicted.std() / true.std()),
        "error": float(np.abs(error).mean()),
        "error of the mean": float(np.abs(true - true.mean()).mean()),
        names[0]: float(error[true >= high].mean()),
        names[1]: float(error[true <= low].mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--people", type=int, default=400)
    parser.add_argument("--looks", type=Path, help="a looks file: half of the people wear it")
    parser.add_argument("--keypoints", action="store_true", help="without images")
    parser.add_argument("--json")
    options = parser.parse_args()
    body = population_body()
    people = SyntheticPeople(SEED, Recorded(PoseBank.load("test")), body, options.looks)
    batch = as_tensors(people.batch(0, options.people))
    model = DPMesh.from_pretrained(options.weights).eval()
    betas = predict(model, batch, images=not options.keypoints).betas
    predicted, true = (measures(body, values.double().numpy()) for values in (betas, batch["betas"]))
    rows = {
        name: compared(predicted[name], true[name], tenths)
        for name, tenths in (("stature", ("tall", "short")), ("waist", ("heavy", "thin")))
    }
    shown = {name: {key: round(value, 2) for key, value in row.items()} for name, row in rows.items()}
    report_result({"people": options.people, "images": not options.keypoints, **shown}, options.json)


if __name__ == "__main__":
    main()
