"""Top-down pose models of the user: keypoints of the person in a box, from heatmaps or SimCC vectors."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Shaped, UInt8

from dpmesh.errors import ConfigError, InputError
from dpmesh.geometry.crop import sample_window
from dpmesh.inference.detections import Detection
from dpmesh.inference.options import settings_file
from dpmesh.inference.user_models.onnx_file import UserModel
from dpmesh.inference.user_models.settings import (
    Normalisation,
    input_size,
    joint_order,
    normalisation,
    read_settings,
    unknown_convention,
)
from dpmesh.skeletons import COCO17, HALPE26, JOINTS30, WHOLEBODY133, Skeleton, convert

KEYS = ("input_size", "mean", "std", "colour", "padding", "decode", "udp", "joints", "score_max")
"""Of the TOML file."""
PADDING = 1.25
"""Size of the window relative to the box, in the tools that train these models."""
IMAGENET = Normalisation((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "rgb")
"""Of PaddleDetection, MMPose and ViTPose."""
_BY_COUNT = {len(joints): joints for joints in (COCO17, HALPE26, WHOLEBODY133)}


class PoseModel:
    """A pose model in an ONNX file, with a TOML file of the same name for what differs from its kind.

    Outputs: heatmaps 1×J×h×w (TinyPose, HRNet, ViTPose), or two SimCC vectors 1×J×(k·width) and 1×J×(k·height)
    (RTMPose). Defaults: ImageNet's normalisation of RGB, if the graph begins with a convolution; a window of 1.25
    times the box; COCO-17, HALPE-26 or COCO-WholeBody-133 by the number of joints.
    Raises InputError, ConfigError; a convention that neither file determines is an error.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.model = UserModel(path, threads)
        settings = read_settings(path, KEYS)
        size = input_size(self.model, settings)
        if size is None:
            raise unknown_convention(path, "its input has no fixed size", "input_size")
        self.size: tuple[int, int] = size
        """Width and height of the input, pixels."""
        known = self.model.first_operator == "Conv" and self.model.dtype.kind == "f"
        self.normalisation = normalisation(self.model, settings, IMAGENET if known else None)
        self.padding = float(settings.get("padding", PADDING))
        self.udp = bool(settings.get("udp", False))
        self.score_max = float(settings.get("score_max", 1.0))
        outputs = self.model.run(self.normalisation(np.zeros((size[1], size[0], 3), np.uint8)))
        self._heatmap, self._simcc = self._layout(outputs, settings)
        count = outputs[self._simcc[0] if self._simcc else self._heatmap].shape[1]
        self.joints = self._joints(count, settings)

    def detect(
        self, image: UInt8[np.ndarray, "h w 3"], box: Float32[np.ndarray, "4"], score: float
    ) -> Detection:
        """The person in a box (xyxy px of the RGB image). Raises InputError for a box without area."""
        points = self.keypoints(image, box)
        coco = convert(points, self.joints, COCO17)
        if self.joints is COCO17:
            return Detection(box, coco, score)
        return Detection(box, coco, score, convert(points, self.joints, JOINTS30))

    def keypoints(
        self, image: UInt8[np.ndarray, "h w 3"], box: Float32[np.ndarray, "4"]
    ) -> Float32[np.ndarray, "j 3"]:
        """x, y (image pixels) and confidence in [0, 1] of the model's joints."""
        to_image = window_of(box, self.size, self.padding, self.udp)
        width, height = self.size
        outputs = self.model.run(self.normalisation(sample_window(image, to_image, (height, width))))
        if self._simcc:
            x, y = (outputs[i][0].astype(np.float32) for i in self._simcc)
            points = decode_simcc(x, y, self.size)
        else:
            points = decode_heatmaps(outputs[self._heatmap][0].astype(np.float32), self.size, self.udp)
        points[:, :2] = points[:, :2] * to_image[[0, 1], [0, 1]] + to_image[:, 2]
        points[:, 2] = (points[:, 2] / self.score_max).clip(0, 1)
        return points.astype(np.float32)

    def _layout(
        self, outputs: list[Shaped[np.ndarray, "..."]], settings: dict[str, Any]
    ) -> tuple[int, tuple[int, int] | None]:
        """Index of the heatmaps, or (0, indices of the SimCC vectors of x and y)."""
        width, height = self.size
        maps = [
            i for i, a in enumerate(outputs) if a.ndim == 4 and len(a) == 1 and _shares_aspect(a, self.size)
        ]
        lines = [i for i, a in enumerate(outputs) if a.ndim == 3 and len(a) == 1]
        decode = settings.get("decode", "heatmap" if maps else "simcc")
        if decode == "heatmap" and len(maps) == 1:
            return maps[0], None
        if decode == "simcc" and len(lines) == 2:
            names = [self.model.outputs[i] for i in lines]
            x, y = lines if names != ["simcc_y", "simcc_x"] else lines[::-1]
            a, b = outputs[x].shape, outputs[y].shape
            if a[1] == b[1] and a[2] * height == b[2] * width and a[2] >= width:
                return 0, (x, y)
        raise InputError(
            f"its outputs ({self.model.described(outputs)}) are neither heatmaps 1×J×h×w nor SimCC vectors 1×J×(k·"
            f"{width}), 1×J×(k·{height})",
            where=str(self.model.path),
            fix="Use a top-down model, exported without its decoding.",
        )

    def _joints(self, count: int, settings: dict[str, Any]) -> Skeleton:
        where = str(settings_file(self.model.path))
        if "joints" not in settings:
            if count in _BY_COUNT:
                return _BY_COUNT[count]
            raise unknown_convention(self.model.path, f"the order of its {count} joints is unknown", "joints")
        joints = joint_order(settings["joints"], where)
        if len(joints) != count:
            raise ConfigError(f"joints has {len(joints)}, the model has {count}", where=where)
        return joints


def window_of(
    box: Float32[np.ndarray, "4"], size: tuple[int, int], padding: float, udp: bool
) -> Float64[np.ndarray, "2 3"]:
    """Affine map from pixels of the model's input to the image's: the box, widened to the input's aspect and padded.

    size: width and height of the input. udp: the outermost pixel centres lie on the window's edges (Unbiased Data
    Processing, Huang et al. 2020). Raises InputError for a box without area.
    """
    x1, y1, x2, y2 = (float(v) for v in box)
    if not (np.isfinite(box).all() and x2 > x1 and y2 > y1):
        raise InputError("a box must have x1 < x2 and y1 < y2", where=f"box {x1:g} {y1:g} {x2:g} {y2:g}")
    aspect = size[0] / size[1]
    width, height = max(x2 - x1, (y2 - y1) * aspect) * padding, max(y2 - y1, (x2 - x1) / aspect) * padding
    across, down = width / (size[0] - udp), height / (size[1] - udp)
    return np.array([[across, 0, (x1 + x2 - width) / 2], [0, down, (y1 + y2 - height) / 2]])


def decode_heatmaps(
    heatmaps: Float32[np.ndarray, "j h w"], size: tuple[int, int], udp: bool = False
) -> Float64[np.ndarray, "j 3"]:
    """x, y (pixels of the input of `size`) and maximum of each heatmap.

    The maximum is moved a quarter of a cell towards its higher neighbour, along each axis.
    """
    count, height, width = heatmaps.shape
    best = heatmaps.reshape(count, -1).argmax(1)
    y, x = np.divmod(best, width)
    joint = np.arange(count)
    points = np.stack([x, y, heatmaps[joint, y, x]], 1).astype(np.float64)
    inner = (x > 0) & (x < width - 1)
    left, right = heatmaps[joint, y, (x - 1).clip(0)], heatmaps[joint, y, (x + 1).clip(max=width - 1)]
    points[:, 0] += 0.25 * inner * np.sign(right - left)
    inner = (y > 0) & (y < height - 1)
    above, below = heatmaps[joint, (y - 1).clip(0), x], heatmaps[joint, (y + 1).clip(max=height - 1), x]
    points[:, 1] += 0.25 * inner * np.sign(below - above)
    points[:, :2] *= (np.array(size) - udp) / (np.array([width, height]) - udp)
    return points


def decode_simcc(
    x: Float32[np.ndarray, "j kw"], y: Float32[np.ndarray, "j kh"], size: tuple[int, int]
) -> Float64[np.ndarray, "j 3"]:
    """x, y (pixels of the input of `size`) and the lower of both maxima (Li et al. 2022, as MMPose decodes them)."""
    bins = np.stack([x.argmax(1), y.argmax(1)], 1) * np.array(size) / [x.shape[1], y.shape[1]]
    return np.column_stack([bins, np.minimum(x.max(1), y.max(1))]).astype(np.float64)


def _shares_aspect(heatmaps: Shaped[np.ndarray, "1 j h w"], size: tuple[int, int]) -> bool:
    height, width = heatmaps.shape[2:]
    return min(height, width) > 1 and width * size[1] == height * size[0] and width <= size[0]
