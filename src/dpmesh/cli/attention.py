"""`dpmesh attention IMAGE --out DIR`: cross-attention maps of each joint (the paper's Figure 6)."""

import argparse
import os
from pathlib import Path

from dpmesh.cli.arguments import add_model, add_people, folder, model_options, predict_options
from dpmesh.cli.image_files import check_keypoints, input_files, parents_of, refuse_input_in
from dpmesh.cli.streams import say
from dpmesh.errors import InputError
from dpmesh.inference.options import file_sha256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="an image file")
    parser.add_argument(
        "--out",
        type=folder,
        required=True,
        metavar="DIR",
        help="folder for the results: those of a.jpg are DIR/a/person_00_joints.png, person_00_mean.png, ...",
    )
    add_people(parser)
    add_model(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="compute and replace results that DIR already has"
    )


def run(args: argparse.Namespace) -> int:
    out, image = Path(args.out), Path(args.image)
    check_keypoints(args)
    from dpmesh.inference.image_list import result_names

    name = result_names({image: ""})[image]
    if _is_done(out / name, image, args):
        say(f"{args.image}: done before, kept (--overwrite makes it again) → {out / name}")
        return 0

    from dpmesh.inference.attention import attention_maps
    from dpmesh.inference.predictor import Predictor

    predictor = Predictor.from_pretrained(**vars(model_options(args, refine=False)))
    attention = attention_maps(predictor, image, predict_options(args))
    if not attention.people:
        raise InputError("no person detected", where=args.image, fix="Use --keypoints or --boxes.")
    folder = attention.save(out, name, overwrite=args.overwrite)
    people = "1 person" if len(attention.people) == 1 else f"{len(attention.people)} people"
    say(f"{args.image}: {people}{''.join(f'; {note}' for note in attention.notes)} → {folder}")
    return 0


def _is_done(target: Path, image: Path, args: argparse.Namespace) -> bool:
    """Whether this result exists already; decided before a model is loaded. Raises DPMeshError."""
    from dpmesh.inference.output_formats import wanted_attention
    from dpmesh.inference.result_folder import plan_result

    digest = file_sha256(image)
    if not os.path.lexists(target):
        return False
    refuse_input_in(target, parents_of([image, *input_files(args)]))
    options = model_options(args, refine=False).record() | predict_options(args).record()
    return plan_result(target, wanted_attention(digest, str(image), options), args.overwrite).kind == "keep"
