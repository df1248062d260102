"""`dpmesh export onnx WEIGHTS OUT.onnx`: a model for programs without torch."""

import argparse
import importlib.util
import os
from pathlib import Path

from dpmesh.cli.arguments import add_body, folder
from dpmesh.cli.streams import say
from dpmesh.errors import DPMeshError, OutputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    formats = parser.add_subparsers(dest="format", required=True, metavar="onnx")
    onnx = formats.add_parser(
        "onnx", help="one ONNX file: crop and keypoints in, body out", allow_abbrev=False
    )
    add = onnx.add_argument
    add("weights", metavar="WEIGHTS", help="model weights: a shipped name (embedded) or a folder")
    add(
        "out",
        type=folder,
        metavar="OUT.onnx",
        help="the file to write; beyond 2 GiB its weights go to OUT.onnx.data",
    )
    add_body(onnx)
    add("--overwrite", action="store_true", help="replace OUT.onnx, if it is an ONNX model")


def run(args: argparse.Namespace) -> int:
    refuse_out(args.out, args.overwrite)
    from dpmesh.body.resolve import choose_body
    from dpmesh.fuse import optimise_for_inference
    from dpmesh.model import DPMesh
    from dpmesh.onnx import INPUTS, OPSET, export_onnx, outputs_of

    chosen = choose_body(args.weights, args.body, args.regressors)
    model = optimise_for_inference(DPMesh.from_pretrained(args.weights, chosen.arrays))
    files = export_onnx(model, args.out)
    for note in chosen.notes:
        say(note)
    if chosen.record:
        say("the file contains your body's arrays and is under their licence")
    say(f"{', '.join(INPUTS)} → {', '.join(outputs_of(model))}; opset {OPSET}, any number of people")
    for file in files:
        say(f"{file}: {file.stat().st_size / 1e6:,.1f} MB")
    return 0


def refuse_out(out: Path, overwrite: bool) -> None:
    """Raise OutputError, before a model is loaded, for an output that exists or that is not an ONNX file."""
    if out.suffix.lower() != ".onnx":
        raise OutputError(
            "the name does not end in .onnx", where=str(out), fix=f"Write {out.name or 'model'}.onnx."
        )
    data = out.with_name(f"{out.name}.data")
    existing = [path for path in (out, data) if os.path.lexists(path)]
    for path in existing:
        if os.path.isdir(path):
            raise OutputError("is a folder", where=str(path), fix="Choose another name.")
        if not overwrite:
            raise OutputError(
                "the file exists already", where=str(path), fix="Use --overwrite or another name."
            )
    if existing and importlib.util.find_spec("onnx") is not None:  # without it nothing is written
        external = _external_files(out)
        for path in existing:
            if external is None or (path == data and data.name not in external):
                raise OutputError(
                    "is not part of an ONNX model, left unchanged",
                    where=str(path),
                    fix="Choose another name.",
                )


def _external_files(path: Path) -> set[str] | None:
    """The files that contain an ONNX model's weights; None for a file that is not an ONNX model."""
    import onnx
    from google.protobuf.message import DecodeError

    from dpmesh.io import read_bytes
    from dpmesh.onnx import tensors_of

    try:
        model = onnx.load_from_string(read_bytes(path, 2**31))
    except (DPMeshError, DecodeError):
        return None
    if model.ir_version < 1 or not model.graph.node or not model.opset_import:
        return None
    return {
        entry.value
        for tensor in tensors_of(model.graph)
        for entry in tensor.external_data
        if entry.key == "location"
    }
