"""Export of the whole forward pass as an ONNX file, with a dynamic batch size.

Uses torch's TorchScript exporter. Its successor (dynamo=True) gives the same numbers, but takes ten times as long (a
minute for `embedded`) and needs onnxscript.
"""

import importlib.util
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpmesh.errors import ConfigError, OutputError
from dpmesh.geometry import CROP
from dpmesh.io import reason
from dpmesh.model import DPMesh
from dpmesh.types import Inputs

INPUTS = ("crop", "joints", "visible", "focal")
"""Names of the inputs, as in types.Inputs."""
OUTPUTS = ("vertices", "joints3d", "joints2d", "global_orient", "body_rotations", "betas", "transl")
"""Names of the outputs, as in types.Prediction."""
SIGMA = "joint_sigma"
"""Further output of a model that predicts it."""

OPSET = 20
"""The first opset whose GridSample samples volumes."""
_PAGE = 4096
"""Alignment of the weights in bytes, so that the file can be memory-mapped."""


class FlatModel(nn.Module):
    """The model with tensors instead of dataclasses, which the exporter does not support."""

    def __init__(self, model: DPMesh) -> None:
        super().__init__()
        self.model = model

    def forward(self, crop: Tensor, joints: Tensor, visible: Tensor, focal: Tensor) -> tuple[Tensor, ...]:
        prediction = self.model(Inputs(crop, joints, visible, focal))
        return tuple(getattr(prediction, name) for name in outputs_of(self.model))


def outputs_of(model: DPMesh) -> tuple[str, ...]:
    """Names of the file's outputs, in order."""
    return (*OUTPUTS, SIGMA) if model.predicts_sigma else OUTPUTS


def export_onnx(model: DPMesh, path: str | Path) -> list[Path]:
    """Write the model to an ONNX file; returns the paths of the files written. Best after `optimise_for_inference`.

    Inputs crop (b, 3, 256, 256), joints (b, 30, 2), visible (b, 30), focal (b,); outputs vertices (b, v, 3), joints3d
    (b, 30, 3), joints2d (b, 30, 2), global_orient (b, 3, 3), body_rotations (b, 23, 3, 3), betas (b, 10), transl (b,
    3), and joint_sigma (b, 30) of a model that predicts it; units and frames as in types.Inputs and Prediction; any
    batch size b. The file contains the body model: with SMPL, SMPL's licence applies to it. A protobuf file is limited
    to 2 GiB: the weights of a larger model go to NAME.onnx.data in the same folder, where onnxruntime finds them.

    Raises ConfigError for a model that is not in fp32 on a CPU, or without the package onnx; OutputError where the
    files cannot be written.
    """
    path = Path(path)
    if importlib.util.find_spec("onnx") is None:
        raise ConfigError(
            "ONNX files need onnx", where="export", fix="Install it with: pip install 'dpmesh[onnx]'"
        )
    if any(p.dtype != torch.float32 or p.device.type != "cpu" for p in model.parameters()):
        raise ConfigError("only a model in fp32 on a CPU can be exported", where="export")
    training = model.training
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.name.encode()  # protobuf has UTF-8 only, and the file stores the name of its data file
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".dpmesh.") as temporary:
            part = Path(temporary) / path.name
            trace(FlatModel(model.eval()), part)
            files = [part]
            if (
                sum(1 for _ in Path(temporary).iterdir()) > 1
            ):  # too large for one file: a file for each weight
                files.append(join_weights(part))
            for file in reversed(files):  # the weights before the file that refers to them
                os.replace(file, path.parent / file.name)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
            raise
        raise OutputError(f"the model cannot be written ({reason(error)})", where=str(path)) from error
    finally:
        model.train(training)
    return [path.parent / file.name for file in files]


@torch.no_grad()
def trace(flat: FlatModel, file: Path) -> None:
    """Export with a batch of two random people."""
    people, outputs = 2, outputs_of(flat.model)
    example = (
        torch.rand(people, 3, CROP, CROP),
        torch.rand(people, 30, 2) * CROP,
        torch.ones(people, 30),
        torch.full((people,), 1000.0),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about constants in the trace; tests/test_export.py checks them
        torch.onnx.export(
            flat,
            example,
            str(file),
            dynamo=False,
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=outputs,
            dynamic_axes={name: {0: "people"} for name in (*INPUTS, *outputs)},
        )


def join_weights(file: Path) -> Path:
    """Join the external weight files, one for each tensor, to a single file; returns its path."""
    import onnx

    model = onnx.load(str(file), load_external_data=False)
    data = file.with_name(f"{file.name}.data")
    with data.open("wb") as joined:
        for tensor in tensors_of(model.graph):
            where = {entry.key: entry.value for entry in tensor.external_data}
            if not where:
                continue
            piece = file.parent / where["location"]
            joined.write(b"\0" * (-joined.tell() % _PAGE))
            where = {"location": data.name, "offset": joined.tell(), "length": piece.stat().st_size}
            joined.write(piece.read_bytes())
            piece.unlink()
            del tensor.external_data[:]
            for key, value in where.items():
                tensor.external_data.add(key=key, value=str(value))
    file.write_bytes(model.SerializeToString())
    return data


def tensors_of(graph: Any) -> Iterator[Any]:
    """Weights and constants of a graph and its subgraphs; either may be stored externally."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from tensors_of(attribute.g)
