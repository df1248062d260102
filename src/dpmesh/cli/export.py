"""`dpmesh export onnx WEIGHTS OUT.onnx`."""

import argparse
import os
from pathlib import Path

from dpmesh.errors import OutputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    formats = parser.add_subparsers(dest="format", required=True, metavar="onnx")
    onnx = formats.add_parser(
        "onnx", help="one ONNX file: crop and keypoints in, body out", allow_abbrev=False
    )
    add = onnx.add_argument
    add("weights", metavar="WEIGHTS", help="a folder with weights, or shipped ones (embedded)")
    add("out", type=Path, metavar="OUT.onnx", help="beyond 2 GiB the weights go to OUT.onnx.data beside it")
    add("--body", metavar="FILE", help="your SMPL body for weights that need one (default: the imported one)")
    add("--regressors", metavar="DIR", help="its J_regressor_*.npy (default: the imported ones)")
    add("--overwrite", action="store_true", help="replace OUT.onnx")


def run(args: argparse.Namespace) -> int:
    refuse_out(args.out, args.overwrite)
    from dpmesh.export import INPUTS, OPSET, export_onnx, outputs_of
    from dpmesh.model import DPMesh
    from dpmesh.optimise import optimised
    from dpmesh.pipeline.bodies import choose_body

    chosen = choose_body(args.weights, args.body, args.regressors)
    model = optimised(DPMesh.from_pretrained(args.weights, chosen.arrays))
    files = export_onnx(model, args.out)
    for note in chosen.notes:
        print(note)
    if chosen.record:
        print("the file holds your body's arrays: it is under their licence")
    print(f"{', '.join(INPUTS)} → {', '.join(outputs_of(model))}; opset {OPSET}, any number of people")
    for file in files:
        print(f"{file}: {file.stat().st_size / 1e6:,.1f} MB")
    return 0


def refuse_out(out: Path, overwrite: bool) -> None:
    """Raise OutputError before a model is loaded for nothing, and before anything but an ONNX file is replaced."""
    if out.suffix.lower() != ".onnx":
        raise OutputError(
            "the name does not end in .onnx", where=str(out), fix=f"Write {out.name or 'model'}.onnx."
        )
    for path in (out, out.with_name(f"{out.name}.data")):
        if os.path.isdir(path):
            raise OutputError("is a folder", where=str(path), fix="Choose another name.")
        if os.path.lexists(path) and not overwrite:
            raise OutputError(
                "there is such a file already", where=str(path), fix="Use --overwrite or another name."
            )
