"""Tiny ONNX graphs in the layouts of published person and pose models."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
WIDTH, HEIGHT = 192, 256


def constant(name: str, values: Any, kind: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, kind), name)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    outputs: dict[str, Any],
    shape: tuple[Any, ...] = (1, 3, HEIGHT, WIDTH),
    kind: int = TensorProto.FLOAT,
) -> Path:
    results = [
        helper.make_tensor_value_info(n, TensorProto.INT64 if n == "labels" else TensorProto.FLOAT, s)
        for n, s in outputs.items()
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("image", kind, shape)], results, constants
    )
    domains = {node.domain for node in nodes} | {""}
    sets = [helper.make_opsetid(domain, 13 if not domain else 1) for domain in sorted(domains)]
    path.write_bytes(helper.make_model(graph, opset_imports=sets, ir_version=8).SerializeToString())
    return path


def pixel_values(joints: int, stride: int, mean: np.ndarray = MEAN, std: np.ndarray = STD) -> Any:
    """A convolution whose first three outputs are the image's channels in [0, 1], the normalisation undone."""
    weights, bias = np.zeros((joints, 3, 5, 5)), np.zeros(joints)
    for c in range(3):
        weights[c, c], bias[c] = std[c] / 255 / 25, mean[c] / 255
    strides = [stride, stride]
    node = helper.make_node("Conv", ["image", "w", "b"], ["maps"], pads=[2, 2, 2, 2], strides=strides)
    return node, [constant("w", weights), constant("b", bias)]


def heatmap_model(path: Path, name: str = "maps", joints: int = 17, batch: Any = 1, before: str = "") -> Path:
    """Heatmaps 1×J×64×48: TinyPose, HRNet; with the name `heatmap` and a free batch ViTPose."""
    node, constants = pixel_values(joints, 4)
    node.output[0] = name
    nodes = [node]
    if before:
        node.input[0] = "changed"
        extra = ["one"] if before == "Mul" else []
        nodes = [helper.make_node(before, ["image", *extra], ["changed"]), node]
        constants.append(constant("one", 1.0))
    return save(path, nodes, constants, {name: [batch, joints, 64, 48]}, (batch, 3, HEIGHT, WIDTH))


def simcc_model(path: Path, swapped: bool = False) -> Path:
    """SimCC vectors with two bins a pixel: RTMPose."""
    node, constants = pixel_values(17, 1)
    nodes = [node]
    for name, axis, size in (("simcc_x", 2, WIDTH), ("simcc_y", 3, HEIGHT)):
        bins = np.zeros((size, 2 * size))
        bins[np.arange(size), 2 * np.arange(size)] = 1
        constants.append(constant(f"{name}_bins", bins))
        nodes.append(helper.make_node("ReduceMax", ["maps"], [f"{name}_max"], axes=[axis], keepdims=0))
        nodes.append(helper.make_node("MatMul", [f"{name}_max", f"{name}_bins"], [name]))
    outputs = {"simcc_x": [1, 17, 2 * WIDTH], "simcc_y": [1, 17, 2 * HEIGHT]}
    return save(path, nodes, constants, dict(reversed(outputs.items())) if swapped else outputs)


DETS = np.array([[30, 60, 80, 150, 0.5], [10, 20, 60, 100, 0.9], [5, 5, 50, 50, 0.9], [1, 1, 9, 9, 0.2]])
LABELS = np.array([0, 0, 1, 0])


def person_model(path: Path, yolox: bool = False, size: Any = (320, 320)) -> Path:
    """dets 1×n×5, labels 1×n: boxes are constant, scores grow with the mean of the input's first channel."""
    std, mean = (1.0, 0.0) if yolox else (57.375, 103.53)
    weight = np.zeros((1, 3, 1, 1))
    weight[0, 0] = std / 255
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["first"]),
        helper.make_node("ReduceMean", ["first"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["scores", "mean"], ["scaled"]),
        helper.make_node("Concat", ["boxes", "scaled"], ["dets"], axis=2),
        helper.make_node("Identity", ["classes"], ["labels"]),
    ]
    constants = [
        constant("w", weight), constant("b", [mean / 255]), constant("boxes", DETS[None, :, :4]),
        constant("scores", DETS[None, :, 4:]), constant("classes", LABELS[None], np.int64),
    ]  # fmt: skip
    if yolox:
        nodes[0].input[0] = "cut"
        nodes.insert(0, helper.make_node("Slice", ["image", "zero", "many"], ["cut"]))
        constants += [constant("zero", [0], np.int64), constant("many", [9], np.int64)]
    return save(path, nodes, constants, {"dets": [1, 4, 5], "labels": [1, 4]}, (1, 3, *size))
