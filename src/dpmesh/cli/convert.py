"""`dpmesh convert released FILE OUT` and `dpmesh convert sd15 SOURCE OUT`: weights of other projects."""

import argparse
import os
from pathlib import Path
from typing import Any

from dpmesh.cli.arguments import folder
from dpmesh.cli.streams import say
from dpmesh.errors import ConfigError, OutputError

TAKES_SETTINGS = True
"""See `arguments.split_settings`."""


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
        help="neutral SMPL body (.pkl, .npz), compared with the checkpoint's and recorded (default: the imported one)",
    )
    released.add_argument(
        "--regressors",
        type=Path,
        metavar="DIR",
        help="folder with the body's J_regressor_*.npy files (default: the imported ones)",
    )
    released.add_argument(
        "--merge-lora", action="store_true", help="merge the LoRA updates into their layers"
    )
    released.add_argument(
        "--keep-smpl",
        type=folder,
        metavar="DIR",
        help="write the checkpoint's own SMPL body (licensed) to this folder",
    )
    sd15 = kinds.add_parser(
        "sd15", help="Stable Diffusion 1.5, as initial weights for training", allow_abbrev=False
    )
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
        help="model to initialise: a configuration such as paper-z0, or that of a training config (default: paper)",
    )
    sd15.epilog = "--set.model.NAME VALUE changes a value of the model, as in dpmesh train; may be repeated"
    sd15.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random seed of the other parts (default: 0)"
    )
    for one in (released, sd15):
        one.add_argument(
            "--overwrite",
            action="store_true",
            help="replace files that OUT (and --keep-smpl's DIR) already has",
        )


def run(args: argparse.Namespace) -> int:
    if args.settings and args.kind != "sd15":
        raise ConfigError("--set changes the model of dpmesh convert sd15 only", where="--set")
    from dpmesh.checkpoint import CONFIG, WEIGHTS

    for name in (CONFIG, WEIGHTS):
        if os.path.lexists(args.out / name) and not args.overwrite:
            raise OutputError(
                "the file exists already",
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
    _say_body(provenance["body"])
    if args.keep_smpl:
        say(f"SMPL's arrays, under their own licence: {args.keep_smpl / KEPT}")
    say(f"weights: {args.out}")


def _say_body(record: dict[str, Any]) -> None:
    if not record:
        say("no body was named: pass SMPL's to dpmesh predict by --body, or: dpmesh assets import FILE")
        return
    compared = "not compared: the checkpoint has none"
    if "differs_from_checkpoint" in record:
        compared = (
            "; ".join(record["differs_from_checkpoint"]) or "the one that the checkpoint was trained with"
        )
    say(f"body: {record['file']} ({compared})")
    for name in ("h36m_regressor", "extra_regressor"):
        if name not in record:
            say(f"no {name}: dpmesh assets doctor explains what it is for")


def _sd15(args: argparse.Namespace) -> None:
    from dpmesh.convert.stable_diffusion import convert_sd15
    from dpmesh.train.config import model_of, read_value

    config = model_of(args.config, {name: read_value(value) for name, value in args.settings})
    provenance = convert_sd15(args.source, args.out, config, controlnet=args.controlnet, seed=args.seed)
    say(f"pretrained: {', '.join(provenance['pretrained'])}; ControlNet: {provenance['controlnet']}")
    say(
        f"all other parts are random (seed {provenance['seed']}): initial weights for training, not for prediction"
    )
    say(f"weights: {args.out}")
