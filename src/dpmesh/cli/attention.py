"""`dpmesh attention IMAGE --out DIR`: where the model looks for each joint (the paper's Figure 6)."""

import argparse
from pathlib import Path

from dpmesh.cli.arguments import add_model, add_people
from dpmesh.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="a picture")
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="a.jpg becomes DIR/a/person_00_joints.png, person_00_mean.png, person_00.npz, ...",
    )
    add_people(parser)
    add_model(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace what DIR already holds of it")


def run(args: argparse.Namespace) -> int:
    out, image = Path(args.out), Path(args.image)
    if args.keypoints is not None and not Path(args.keypoints).is_file():
        raise InputError("no such file", where=args.keypoints, fix="Give a JSON file of keypoints.")
    if not image.is_file():
        raise InputError("no such file", where=args.image)

    from dpmesh.pipeline.folder import refuse_existing

    refuse_existing(out / image.stem, args.overwrite)  # before a model is loaded for nothing

    from dpmesh.pipeline.attention import attention_of
    from dpmesh.pipeline.images import MAX_PIXELS
    from dpmesh.pipeline.predictor import Predictor

    predictor = Predictor.from_pretrained(
        args.weights, args.device, args.threads, args.fast, args.body, args.regressors
    )
    seen = attention_of(
        predictor,
        image,
        keypoints=args.keypoints,
        boxes=args.boxes,
        max_people=args.max_people,
        max_pixels=args.max_pixels or MAX_PIXELS,
    )
    if not seen.people:
        raise InputError("nobody was found in it", where=args.image, fix="Give --keypoints or --boxes.")
    folder = seen.save(out, overwrite=args.overwrite)
    people = "1 person" if len(seen.people) == 1 else f"{len(seen.people)} people"
    print(f"{args.image}: {people}{''.join(f'; {note}' for note in seen.notes)} → {folder}")
    return 0
