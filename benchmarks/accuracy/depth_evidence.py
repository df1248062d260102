"""Would BlazePose's depths help? The refined bodies of pose2sim's tuning half with its depths in place of their own.

    python -m benchmarks.accuracy.mediapipe_pose2sim ask DATA --work WORK      # in MediaPipe's environment
    python -m benchmarks.accuracy.depth_evidence DATA --work WORK [--weights W] [--json FILE]

MediaPipe's joints are those of the true box's window, turned to the image's camera and scaled to the size of ours.
Depth is along the way from the camera to the hips. Twelve joints relative to the middle of the hips: mean MPJPE,
PA-MPJPE and error in depth, mm, over the people whom both find; `whole`: the detector gives all twelve.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.accuracy.mediapipe_pose import NAMES
from benchmarks.accuracy.mediapipe_pose2sim import FILE, SETS, WINDOW, place
from benchmarks.machine import report_result
from dpmesh.evaluate import results
from dpmesh.evaluate.baselines import Refined
from dpmesh.evaluate.registry import open_source
from dpmesh.evaluate.whole_images import WholeImageSource
from dpmesh.geometry.camera import crop_rotation
from dpmesh.geometry.crop import Crop
from dpmesh.metrics import mpjpe, pa_mpjpe
from dpmesh.model import DPMesh
from dpmesh.skeletons import H36M17, JOINTS30

_ROWS = [H36M17.index(name) for name in NAMES]
_IN_30 = [JOINTS30.index(name) for name in NAMES]
_HIPS = [NAMES.index("L_Hip"), NAMES.index("R_Hip")]


class Person(NamedTuple):
    """Joints (12, 3) relative to the middle of the hips, metres, the image's camera. way: to the hips, unit vector."""

    ours: np.ndarray
    theirs: np.ndarray
    true: np.ndarray
    way: np.ndarray
    whole: bool


def people(data: Path, stored: Any, number: int, model: DPMesh) -> list[Person]:
    source = open_source(("pose2sim-tuning", "pose2sim-occluded-tuning")[number], data)
    assert isinstance(source, WholeImageSource)
    refined, out = Refined(model), list[Person]()
    for index, record in enumerate(source.records):
        persons = source.persons([index])
        theirs = stored["world"][number, 1][place(data, record)]
        if persons.missed is None or persons.missed[0] or not np.isfinite(theirs).all():
            continue
        prediction = refined(results.inputs_of(persons, model.camera, torch.device("cpu")))
        ours = results.predicted(source.protocol.measure, model, prediction, persons).joints[0, _ROWS]
        true = persons.truth_joints[0, _ROWS]
        hips = true[_HIPS].mean(0)
        assert record.K is not None
        turned = theirs @ crop_rotation(record.K, Crop.around(record.box.astype(np.float32), WINDOW)).T
        ours, turned, true = (joints - joints[_HIPS].mean(0) for joints in (ours, turned, true))
        sizes = [np.linalg.norm(joints - joints.mean(0)) for joints in (ours, turned)]
        whole = bool((persons.visible[0, _IN_30] > 0).all())
        out.append(Person(ours, turned * sizes[0] / sizes[1], true, hips / np.linalg.norm(hips), whole))
    return out


def mixtures(one: Person) -> dict[str, np.ndarray]:
    depth = {name: np.outer(getattr(one, name) @ one.way, one.way) for name in ("ours", "theirs", "true")}
    lateral = one.ours - depth["ours"]
    return {
        "ours": one.ours,
        "MediaPipe": one.theirs,
        "MediaPipe's depths": lateral + depth["theirs"],
        "mean of the depths": lateral + (depth["ours"] + depth["theirs"]) / 2,
        "mean of the joints": (one.ours + one.theirs) / 2,
        "true depths": lateral + depth["true"],
    }


def means(chosen: list[Person]) -> dict[str, Any]:
    rows: dict[str, list[list[float]]] = {}
    for one in chosen:
        for name, joints in mixtures(one).items():
            errors = mpjpe(joints[None], one.true[None])[0], pa_mpjpe(joints[None], one.true[None])[0]
            rows.setdefault(name, []).append([*errors, 1000 * np.abs((joints - one.true) @ one.way).mean()])
    ours, theirs = (
        np.concatenate([(getattr(p, name) - p.true) @ p.way for p in chosen]) for name in ("ours", "theirs")
    )
    return {
        "people": len(chosen),
        "correlation of the errors in depth": round(float(np.corrcoef(ours, theirs)[0, 1]), 2),
        **{name: [round(float(v), 1) for v in np.mean(values, axis=0)] for name, values in rows.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="the folder with pose2sim.json")
    parser.add_argument("--work", type=Path, default=Path("mediapipe_work"))
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, stored = DPMesh.from_pretrained(options.weights), np.load(options.work / FILE)
    result: dict[str, Any] = {"weights": options.weights}
    for number, name in enumerate(SETS):
        everybody = people(options.data, stored, number, model)
        result[name] = means(everybody)
        result[f"{name}, whole"] = means([one for one in everybody if one.whole])
    report_result(result, options.json)


if __name__ == "__main__":
    main()
