"""Builds src/dpmesh/shipped/detector: the three float32 detector models, smaller, with unchanged detections.

    python -m tools.assets.build_detector FP32_FOLDER                     # writes the three files
    python -m tools.assets.build_detector FP32_FOLDER --check IMAGE...  # and compares them with the float32 ones

Each large weight becomes a float16 initializer followed by a Cast to float32. onnxruntime folds the Cast when it opens
the file, so all computation is still in float32. MoveNet Thunder ends in its four heads (HEADS), for any number of
crops; `inference/movenet.py` decodes them. Only one of the box model's 90 classes is used; the rows of the others
are removed from its last layers. Each class has a sigmoid of its own, so a person's score stays the same. Needs `onnx`
(the extra [assets]). Two runs give the same bytes.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dpmesh.assets import SHIPPED, sha256
from dpmesh.inference.detections import Detection
from dpmesh.inference.detector import Detector
from dpmesh.inference.movenet import HEADS
from dpmesh.inference.shipped_models import MODELS

BOXES, THUNDER = MODELS[0], MODELS[2]

SMALL = 64
"""Weights of fewer numbers stay float32: constants such as thresholds, where rounding gains nothing."""


CLASSES, KEPT = 91, (0, 1)
"""Of the box model, with "nothing" as the first, which it drops itself; and a person."""


def keep_person(model: onnx.ModelProto) -> None:
    """Remove the rows of all classes but KEPT from the class predictors, and adapt the reshapes after them."""
    sizes = 0
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if "/ClassPredictor/" in tensor.name:
            rows = values.reshape(-1, CLASSES, *values.shape[1:])[:, list(KEPT)]  # by anchor, then by class
            tensor.CopyFrom(numpy_helper.from_array(rows.reshape(-1, *values.shape[1:]), tensor.name))
        elif values.dtype.kind == "i" and values.size == 1 and values.item() == CLASSES:
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, len(KEPT)), tensor.name))
            sizes += 1
    if sizes != 1:
        raise SystemExit(f"{sizes} constants say {CLASSES}, expected 1")
    for output in model.graph.output:  # (b, anchors, classes but "nothing")
        last = output.type.tensor_type.shape.dim[-1]
        if last.dim_value == CLASSES - 1:
            last.dim_value = len(KEPT) - 1
    del model.graph.value_info[:]


HEAD_TENSORS = (
    "/Sigmoid:0",
    "/Sigmoid_1:0",
    "/kpt_regress_0/conv2d_6/BiasAdd:0",
    "/kpt_offset_0/conv2d_7/BiasAdd:0",
)
"""How the names of Thunder's head tensors end, in the order of HEADS."""


def keep_heads(model: onnx.ModelProto) -> None:
    """Remove Thunder's decoding: its outputs become the four heads, and its input any number of crops."""
    graph = model.graph
    made = {output: node for node in graph.node for output in node.output}
    names = dict(zip((next(n for n in made if n.endswith(end)) for end in HEAD_TENSORS), HEADS, strict=True))
    needed, waiting = set[str](), list(names)
    while waiting:
        node = made.get(waiting.pop())
        if node is not None and node.output[0] not in needed:
            needed.update(node.output)
            waiting.extend(node.input)
    nodes = [node for node in graph.node if node.output[0] in needed]
    used = {name for node in nodes for name in node.input}
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    shapes = ((17, 64, 64), (1, 64, 64), (34, 64, 64), (34, 64, 64))
    for name, shape in zip(HEADS, shapes, strict=True):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape]))
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"


def halve(model: onnx.ModelProto) -> None:
    """Store the large float32 initializers of the graph as float16, each followed by a Cast back."""
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < SMALL:
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise SystemExit(f"{tensor.name} holds a value that float16 cannot")
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + ".half"))
        casts.append(
            helper.make_node("Cast", [name + ".half"], [name], name=name + ".cast", to=TensorProto.FLOAT)
        )
    if not casts:
        raise SystemExit("no float32 weights found")
    nodes = [*casts, *graph.node]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    # tf2onnx lists initializers among the inputs in old files; a halved one must not stay there.
    names = {cast.output[0] for cast in casts}
    for entry in [entry for entry in graph.input if entry.name in names]:
        graph.input.remove(entry)
    onnx.checker.check_model(model)


def build(source: Path, target: Path, *, half: bool = True) -> None:
    """half: with float16 weights."""
    model = onnx.load(source)
    if source.name == BOXES:
        keep_person(model)
    if source.name == THUNDER:
        keep_heads(model)
    if half:
        halve(model)
    aside = target.with_suffix(".part")
    aside.write_bytes(model.SerializeToString(deterministic=True))
    os.replace(aside, target)
    before, after = source.stat().st_size / 1e6, target.stat().st_size / 1e6
    print(f"{target.name}: {before:.1f} -> {after:.1f} MB, sha256 {sha256(target)}")


def read_rgb(path: Path) -> NDArray[np.uint8]:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise SystemExit(f"{path} is not an image")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def as_lists(people: tuple[Detection, ...]) -> list[dict[str, object]]:
    return [
        {
            "box": np.round(p.box.astype(float), 3).tolist(),
            "keypoints": np.round(p.keypoints.astype(float), 3).tolist(),
            "score": round(float(p.score), 4),
        }
        for p in people
    ]


def check(source: Path, images: list[Path], expectation: Path | None) -> bool:
    """Compare both ways (full and fast) on each image: the number of people, and how far each keypoint moved."""
    good, expected = True, {}
    for fast in (False, True):
        full, half = (
            Detector(fast=fast, folder=folder, rotated_detection=False) for folder in (source, None)
        )
        for path in images:
            pixels = read_rgb(path)
            wanted, got = full(pixels).people, half(pixels).people
            expected[f"{path.name}{'/fast' if fast else ''}"] = as_lists(wanted)
            same = len(wanted) == len(got)
            pairs = list(zip(wanted, got, strict=True)) if same else []
            moved = max(
                (float(np.abs(a.keypoints[:, :2] - b.keypoints[:, :2]).max()) for a, b in pairs), default=0.0
            )
            boxes = max((float(np.abs(a.box - b.box).max()) for a, b in pairs), default=0.0)
            good &= same and moved <= 1.0
            print(
                f"{'fast' if fast else 'full'}  {path.name:28s} people {len(wanted)} / {len(got)}"
                f"  largest move: keypoint {moved:.3f} px, box {boxes:.3f} px"
            )
    if expectation:
        expectation.write_text(json.dumps(expected) + "\n")
    print("same people, keypoints within 1 px" if good else "DIFFERENT")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the detector models small.")
    parser.add_argument("source", type=Path, help=f"folder with {', '.join(MODELS)} in float32")
    parser.add_argument(
        "--check", type=Path, nargs="+", metavar="IMAGE", help="compare with float32 on these"
    )
    parser.add_argument(
        "--write-expectation", type=Path, metavar="JSON", help="store the float32 detections for the test"
    )
    arguments = parser.parse_args()
    (SHIPPED / "detector").mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        build(arguments.source / name, SHIPPED / "detector" / name)
    if not arguments.check:
        return 0
    with TemporaryDirectory() as folder:
        for name in MODELS:
            build(arguments.source / name, Path(folder) / name, half=False)
        return 0 if check(Path(folder), arguments.check, arguments.write_expectation) else 1


if __name__ == "__main__":
    sys.exit(main())
