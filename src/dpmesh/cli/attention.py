"""`dpmesh attention IMAGE --out DIR`: where the model looks for each joint (the paper's Figure 6)."""

import argparse
import os
from pathlib import Path

from dpmesh.cli.album import files_of, name_results, places_of, refuse_input_in
from dpmesh.cli.arguments import add_model, add_people, folder
from dpmesh.cli.streams import say
from dpmesh.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="a picture")
    parser.add_argument(
        "--out",
        type=folder,
        required=True,
        metavar="DIR",
        help="a.jpg becomes DIR/a/person_00_joints.png, person_00_mean.png, person_00.npz, ...",
    )
    add_people(parser)
    add_model(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace what DIR already holds of it")


def run(args: argparse.Namespace) -> int:
    out, image = Path(args.out), Path(args.image)
    if args.keypoints is not None and not os.path.exists(args.keypoints):
        raise InputError("no such file or folder", where=args.keypoints, fix="Check the path.")
    name = name_results([image])[image]
    if _is_there(out / name, image, args):
        say(f"{args.image}: done before, kept (--overwrite makes it again) → {out / name}")
        return 0

    from dpmesh.inference.attention import attention_of
    from dpmesh.inference.images import MAX_PIXELS
    from dpmesh.inference.predictor import Predictor

    predictor = Predictor.from_pretrained(
        args.weights, args.device, args.threads, args.fast, args.body, args.regressors
    )
    seen = attention_of(
        predictor,
        image,
        keypoints=args.keypoints,
        keypoint_format=args.keypoint_format,
        boxes=args.boxes,
        max_people=args.max_people,
        max_pixels=args.max_pixels or MAX_PIXELS,
    )
    if not seen.people:
        raise InputError("nobody was found in it", where=args.image, fix="Give --keypoints or --boxes.")
    folder = seen.save(out, name, overwrite=args.overwrite)
    people = "1 person" if len(seen.people) == 1 else f"{len(seen.people)} people"
    say(f"{args.image}: {people}{''.join(f'; {note}' for note in seen.notes)} → {folder}")
    return 0


def _is_there(target: Path, image: Path, args: argparse.Namespace) -> bool:
    """Whether this result was made before; asked before a model is loaded for nothing. Raises DPMeshError."""
    from dpmesh.inference.formats import wanted_attention
    from dpmesh.inference.options import file_sha256, image_options, model_options
    from dpmesh.inference.result_folder import plan_result

    digest = file_sha256(image)
    if not os.path.lexists(target):
        return False
    refuse_input_in(target, places_of([image, *files_of(args)]))
    options = model_options(args.weights, args.body, args.regressors, args.fast)
    options |= image_options(
        args.keypoints, args.boxes, max_people=args.max_people, keypoint_format=args.keypoint_format
    )
    wanted = wanted_attention(digest, str(image), options)
    return plan_result(target, wanted, args.overwrite).kind == "keep"
