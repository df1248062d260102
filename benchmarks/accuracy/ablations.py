"""The paper's Table 4 on synthetic people, at the embedded model's widths, the same budget for each row.

    python -m benchmarks.accuracy.ablations OUT [--rows NAME ...] [--steps 250] [--seeds 1] [--people 480] [--cache DIR]

trains every row from configs/ablation.toml, measures it on SynthOcc with the noise model's keypoints and prints the
table; --rows repeats some. Finished rows in OUT are kept, interrupted ones resume. A row's difference to its base has a
95 % interval, by bootstrap over persons. It measures the uncertainty for these two sets of weights, not the spread
over seeds; use several --seeds for that.

All rows start from the shipped weights, as the paper's start from Stable Diffusion: as far as the row has the same
parts, and without the parts that it compares. Those start from random weights in every row of a group: the pose head
and the layers before it, or the backbone. (From random weights alone, the few thousand images that a CPU can process
teach only the mean pose.)
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import logging
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import commit, machine
from dpmesh.ablations import configuration
from dpmesh.checkpoint import WEIGHTS
from dpmesh.config_io import from_dict
from dpmesh.evaluate.compare import compare
from dpmesh.evaluate.evaluation import EvaluationConfig
from dpmesh.evaluate.report import read
from dpmesh.evaluate.runner import run_evaluation
from dpmesh.model import DPMesh
from dpmesh.train.config import Settings
from dpmesh.train.context import TrainingContext
from dpmesh.train.trainer import train

CONFIG = Path(__file__).parents[2] / "configs" / "ablation.toml"
PROTOCOL = "synthocc"


@dataclass(frozen=True)
class Row:
    """base: the row that it is compared with. stages: changes to the images stage, one training stage for each. start:
    the row whose weights it starts from; empty: the shipped weights. anew: pattern at the start of the names of the
    parameters that start from random numbers nevertheless."""

    group: str
    description: str
    base: str
    model: str = "embedded"
    stages: tuple[Mapping[str, Any], ...] = ({},)
    start: str = ""
    anew: str = ""
    losses: Mapping[str, float] | None = None


PRIOR = {
    "name": "prior",
    "kind": "prior",
    "steps": 3000,
    "batch": 192,
    "learning_rate": 1e-3,
    "backbone_lr_factor": 1.0,
}
PRETRAIN = {
    "name": "pretrain",
    "kind": "pretrain",
    "learning_rate": 1e-3,
    "backbone_lr_factor": 1.0,
    "longer": 2,
}
STUDENT = {"name": "student", "kind": "student"}
LIFTER = {"keypoint_batch": 128}
FIRST = LIFTER | {"longer": 2}  # a backbone from random weights needs more steps
TWICE = LIFTER | {"longer": 4}
IMAGE_PARTS = r"backbone\.|prompt\."
POSE_PARTS = r"pose_tokens\.|regressor\.(lifter\.pose|pose_head)\."
"""The pose head, and the layers that regress its input."""
KEYPOINTS = {
    "name": "keypoints",
    "kind": "keypoints",
    "steps": 400,
    "batch": 512,
    "learning_rate": 1e-3,
}
POSE = (KEYPOINTS, LIFTER)
ROWS = {
    "all": Row("conditions", "z0 + cj + ct: heat maps and prompt", "", stages=(LIFTER,)),
    "z0": Row("conditions", "z0: the image alone", "all", "embedded-z0", (LIFTER,)),
    "z0+cj": Row("conditions", "z0 + cj: heat maps, concatenated", "all", "embedded-z0+cj", (LIFTER,)),
    "z0+cj_added": Row("conditions", "z0 + cj: heat maps, added", "all", "embedded-z0+cj_added", (LIFTER,)),
    "teacher": Row("NKR", "teacher: true keypoints", "", stages=({"name": "teacher", "kind": "teacher"},)),
    "no_nkr": Row(
        "NKR", "student from the teacher's weights, without NKR", "", stages=(STUDENT,), start="teacher",
        losses={"nkr_contrast": 0.0, "nkr_mse": 0.0},
    ),
    "nkr": Row("NKR", "student with NKR", "no_nkr", stages=(STUDENT,), start="teacher"),
    "unet": Row("start", "U-Net of 32 to 96 channels, random", "", "fused", (FIRST,), anew=IMAGE_PARTS),
    "pretrained": Row("start", "U-Net, denoising before", "unet", "fused", (PRETRAIN, FIRST), anew=IMAGE_PARTS),
    "twice": Row("start", "U-Net, random, twice as long", "pretrained", "fused", (TWICE,), anew=IMAGE_PARTS),
    "resnet10": Row("backbones", "ResNet-10-t, random", "unet", "fused-resnet10", (FIRST,), anew=IMAGE_PARTS),
    "vit_ti": Row("backbones", "ViT-Ti/16, random", "unet", "fused-vit_ti", (FIRST,), anew=IMAGE_PARTS),
    "swinv2_6m": Row("backbones", "Swin-V2, 48 wide, random", "unet", "fused-swinv2_6m", (FIRST,), anew=IMAGE_PARTS),
    "narrow": Row("widths", "U-Net of 24 to 72 channels, random", "unet", "fused-narrow", (FIRST,), anew=IMAGE_PARTS),
    "wide": Row("widths", "U-Net of 40 to 104 channels, random", "unet", "fused-wide", (FIRST,), anew=IMAGE_PARTS),
    "points": Row("pose heads", "VQ-VAE, a point for each token", "", "embedded", POSE, anew=POSE_PARTS),
    "soft": Row(
        "pose heads", "VQ-VAE, a distribution over the codes", "points", "embedded-soft", POSE, anew=POSE_PARTS
    ),
    "direct": Row("pose heads", "6D rotations, no prior", "points", "embedded-direct", POSE, anew=POSE_PARTS),
    "vposer": Row("pose heads", "VPoser-like VAE", "points", "embedded-vposer", (PRIOR, *POSE), anew=POSE_PARTS),
}  # fmt: skip
"""The base of a row stands before it. VPoser's prior trains as long as the shipped VQ-VAE did, on poses alone."""


def settings(name: str, steps: int, seed: int, out: Path) -> Settings:
    """The training settings of a row; its initial weights must exist (`grafted`)."""
    row, plain = ROWS[name], tomllib.loads(CONFIG.read_text())
    (images,) = plain["stages"]
    plain["stages"] = [_stage(images, steps, change) for change in row.stages]
    plain |= {"model": row.model, "seed": seed, "out": str(_folder(out, name, seed) / "train")}
    plain["losses"] = dict(row.losses or {})
    start = _weights(row.start, steps, seed, out) if row.start else _folder(out, name, seed) / "start"
    plain["start"] = str(start)
    return from_dict(Settings, plain, where=name)


def _stage(images: Mapping[str, Any], steps: int, change: Mapping[str, Any]) -> dict[str, Any]:
    stage = {**images, "steps": steps} | change
    stage["steps"] *= stage.pop("longer", 1)
    return stage


def _folder(out: Path, name: str, seed: int) -> Path:
    return out / name / f"seed{seed}"


def _weights(name: str, steps: int, seed: int, out: Path) -> Path:
    training = settings(name, steps, seed, out)
    return TrainingContext.resolve(training).output_folder(len(training.stages) - 1)


def grafted(name: str, weights: str, seed: int, folder: Path) -> None:
    """Save the row's initial model: tensors of `weights` with the same name and shape, except those of `Row.anew`."""
    if (folder / WEIGHTS).is_file():
        return
    torch.manual_seed(seed)
    row, donor = ROWS[name], DPMesh.from_pretrained(weights)
    model = DPMesh.from_config(row.model)
    own = model.state_dict()
    kept = {n: v for n, v in donor.state_dict().items() if not (row.anew and re.match(row.anew, n))}
    shared = {n: v for n, v in kept.items() if n in own and own[n].shape == v.shape}
    model.load_state_dict({**own, **shared})
    note = f"{len(shared)} of {len(own)} tensors of {weights}"
    model.save_pretrained(folder, {"grafted": note, "from": dict(donor.provenance)})
    logging.info("%s begins with %s", name, note)


def measure(name: str, options: argparse.Namespace, seed: int) -> None:
    """Train the row and evaluate it; finished parts are skipped."""
    row = ROWS[name]
    if row.start:
        measure(row.start, options, seed)
    else:
        grafted(name, options.start, seed, _folder(options.out, name, seed) / "start")
    training = replace(settings(name, options.steps, seed, options.out), processes=options.processes)
    logging.info("%s, seed %d", name, seed)
    train(training)
    run_evaluation(
        EvaluationConfig(
            protocol=PROTOCOL, out=_folder(options.out, name, seed), data=options.cache, limit=options.people,
            weights=str(_weights(name, options.steps, seed, options.out)),
        )
    )  # fmt: skip


def report(options: argparse.Namespace) -> dict[str, Any]:
    """All rows that are finished, each with the difference to its base."""
    rows: dict[str, Any] = {}
    for name, row in ROWS.items():
        results = {
            seed: folder
            for seed in options.seeds
            if (folder := _folder(options.out, name, seed) / PROTOCOL).joinpath("result.json").is_file()
        }
        if not results:
            continue
        means = [read(folder)["figures"]["mean"] for folder in results.values()]
        figures = {m: [round(mean[m]["mean"], 2) for mean in means] for m in ("MPJPE", "PA-MPJPE", "MPVE")}
        bases = {s: _folder(options.out, row.base, s) / PROTOCOL for s in results} if row.base else {}
        differences = [
            compare(base, results[seed])["measures"]["MPJPE"]
            for seed, base in bases.items()
            if base.joinpath("result.json").is_file()
        ]
        rows[name] = {
            "group": row.group, "told": row.description, "model": row.model, "seeds": list(results),
            "steps": {stage.name: stage.steps for stage in settings(name, options.steps, 1, options.out).stages},
            **figures, "base": row.base,
            "MPJPE to base": [round(d["difference"], 2) for d in differences],
            "intervals": [[round(v, 2) for v in d["interval over persons"]] for d in differences],
        }  # fmt: skip
    return rows


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "| what changes | row | | MPJPE | PA-MPJPE | MPVE | MPJPE to its base (95 %) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        cells = [" / ".join(f"{v:.1f}" for v in row[m]) for m in ("MPJPE", "PA-MPJPE", "MPVE")]
        apart = "; ".join(
            f"{d:+.1f} ({low:+.1f} … {high:+.1f})"
            for d, (low, high) in zip(row["MPJPE to base"], row["intervals"], strict=True)
        )
        base = f" to `{row['base']}`" if apart else "–"
        lines.append(f"| {row['group']} | `{name}` | {row['told']} | {' | '.join(cells)} | {apart}{base} |")
        if len(row["MPJPE"]) > 1:
            mean, spread = np.mean(row["MPJPE"]), np.std(row["MPJPE"], ddof=1)
            lines.append(
                f"| | | mean of {len(row['MPJPE'])} seeds ± spread | {mean:.1f} ± {spread:.1f} | | | |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="NAME")
    parser.add_argument("--steps", type=int, default=250, help="of 24 people, in each stage of a row")
    parser.add_argument("--start", default="embedded", help="the weights that rows begin with")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--people", type=int, default=480, help="number of SynthOcc's persons, from the first"
    )
    parser.add_argument("--cache", type=Path, help="folder that keeps SynthOcc's images between rows")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only-table", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    for name in () if options.only_table else options.rows:
        configuration(ROWS[name].model)  # report a missing timm before hours of training
    for seed in () if options.only_table else options.seeds:
        for name in options.rows:
            measure(name, options, seed)
    rows = report(options)
    print(table(rows))
    if options.json is not None:
        result = {
            "commit": commit(), "machine": machine(), "persons": options.people,
            "protocol": PROTOCOL, "rows": rows,
        }  # fmt: skip
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
