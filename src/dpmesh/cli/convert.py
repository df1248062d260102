"""`dpmesh convert released FILE OUT` and `dpmesh convert sd15 SOURCE OUT`."""

import argparse
import os
from pathlib import Path
from typing import Any

from dpmesh.cli.arguments import folder
from dpmesh.cli.streams import say
from dpmesh.errors import OutputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="released|sd15")
    released = kinds.add_parser(
        "released", help="a released DPMesh checkpoint (.pth.tar)", allow_abbrev=False
    )
    released.add_argument("file", type=Path, metavar="FILE", help="the checkpoint")
    released.add_argument(
        "out", type=folder, metavar="OUT", help="folder for config.json and model.safetensors"
    )
    released.add_argument(
        "--body",
        type=Path,
        metavar="FILE",
        help="SMPL neutral (.pkl, .npz) to record and compare with the checkpoint's (default: the imported one)",
    )
    released.add_argument(
        "--regressors", type=Path, metavar="DIR", help="J_regressor_*.npy (default: the imported ones)"
    )
    released.add_argument(
        "--merge-lora", action="store_true", help="add the low-rank updates to their layers"
    )
    released.add_argument(
        "--keep-smpl",
        type=folder,
        metavar="DIR",
        help="write the checkpoint's own (licensed) SMPL body there",
    )
    sd15 = kinds.add_parser("sd15", help="Stable Diffusion 1.5, as a start for training", allow_abbrev=False)
    sd15.add_argument(
        "source", type=Path, metavar="SOURCE", help="diffusers folder, or one .safetensors or .ckpt"
    )
    sd15.add_argument("out", type=folder, metavar="OUT", help="folder for config.json and model.safetensors")
    sd15.add_argument(
        "--controlnet",
        type=Path,
        metavar="SOURCE",
        help="diffusers folder or one file (default: copy the U-Net)",
    )
    sd15.add_argument(
        "--config",
        default="paper",
        metavar="NAME|CONFIG.toml",
        help="whose start: a configuration such as paper-z0, or the model of a training config (default: paper)",
    )
    sd15.add_argument(
        "--set",
        nargs=2,
        action="append",
        default=[],
        metavar=("model.NAME", "VALUE"),
        help="change a value of the model, as --set.model.NAME VALUE does in a training",
    )
    sd15.add_argument("--seed", type=int, default=0, metavar="N", help="of the other parts (default: 0)")
    for one in (released, sd15):
        one.add_argument(
            "--overwrite", action="store_true", help="replace what OUT holds already (and --keep-smpl's DIR)"
        )


def run(args: argparse.Namespace) -> int:
    from dpmesh.checkpoint import CONFIG, WEIGHTS

    for name in (CONFIG, WEIGHTS):
        if os.path.lexists(args.out / name) and not args.overwrite:
            raise OutputError(
                "there is such a file already",
                where=str(args.out / name),
                fix="Use --overwrite or another folder.",
            )
    _released(args) if args.kind == "released" else _sd15(args)
    return 0


def _released(args: argparse.Namespace) -> None:
    from dpmesh.ablations import configuration
    from dpmesh.body.resolve import find_regressors, user_body
    from dpmesh.convert.released import convert_released
    from dpmesh.convert.released_body import KEPT

    provenance = convert_released(
        args.file,
        args.out,
        configuration("release"),
        merge_lora=args.merge_lora,
        body=user_body(args.body, args.regressors),
        regressors=find_regressors(args.regressors),
        smpl_to=args.keep_smpl,
        overwrite=args.overwrite,
    )
    dropped = sum(provenance["dropped"].values())
    say(f"{provenance['tensors']} tensors: {provenance['copies']} equal copies, {dropped} dropped")
    for reason, count in provenance["dropped"].items():
        say(f"  {count:4} {reason}")
    say(f"LoRA: {provenance['lora']}")
    if provenance["largest_control_weight"] == 0:
        say("ControlNet's outputs are all zero: this checkpoint does not use the heatmaps")
    _tell_body(provenance["body"])
    if args.keep_smpl:
        say(f"SMPL's arrays, under their own licence: {args.keep_smpl / KEPT}")
    say(f"weights: {args.out}")


def _tell_body(record: dict[str, Any]) -> None:
    if not record:
        say("no body named: give SMPL's to --body when you predict, or: dpmesh assets import FILE")
        return
    told = "not compared: the checkpoint holds none"
    if "differs_from_checkpoint" in record:
        told = "; ".join(record["differs_from_checkpoint"]) or "the one that the checkpoint was trained with"
    say(f"body: {record['file']} ({told})")
    for name in ("h36m_regressor", "extra_regressor"):
        if name not in record:
            say(f"no {name}: dpmesh assets doctor says what it is for")


def _sd15(args: argparse.Namespace) -> None:
    from dpmesh.convert.stable_diffusion import convert_sd15
    from dpmesh.train.config_file import model_of, read_value

    config = model_of(args.config, {name: read_value(value) for name, value in args.set})
    provenance = convert_sd15(args.source, args.out, config, controlnet=args.controlnet, seed=args.seed)
    say(f"pretrained: {', '.join(provenance['pretrained'])}; ControlNet: {provenance['controlnet']}")
    say(
        f"all other parts are random (seed {provenance['seed']}): a start for training, not a model to predict with"
    )
    say(f"weights: {args.out}")
