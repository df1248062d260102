"""Person models of the user: boxes from an ONNX detector with non-maximum suppression inside."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from dpmesh.errors import InputError
from dpmesh.inference.keypoints.boxes import few_enough
from dpmesh.inference.user_models.onnx_file import UserModel
from dpmesh.inference.user_models.settings import (
    Normalisation,
    input_size,
    normalisation,
    read_settings,
    unknown_convention,
)

KEYS = ("input_size", "mean", "std", "colour", "min_score", "person_class")
"""Of the TOML file."""
MIN_SCORE = 0.3
GREY = 114
"""The value around the image."""
_BY_FIRST_OPERATOR = {
    "Conv": Normalisation((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), "bgr"),  # RTMDet
    "Slice": Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bgr"),  # YOLOX cuts its input into four
}


class PersonModel:
    """A detector in an ONNX file (RTMDet, YOLOX as MMDeploy exports them), with a TOML file of the same name.

    Outputs: boxes n×5 (xyxy in pixels of the input, score) and, if the model has several classes, their numbers n.
    The image is scaled into the input's top left corner, the rest is grey. Raises InputError, ConfigError.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.model = UserModel(path, threads)
        settings = read_settings(path, KEYS)
        size = input_size(self.model, settings)
        if size is None:
            what = "its input has no fixed size, and people of other sizes than it was trained on are missed"
            raise unknown_convention(path, what, "input_size")
        self.size: tuple[int, int] = size
        """Width and height of the input, pixels."""
        default = _BY_FIRST_OPERATOR.get(self.model.first_operator) if self.model.dtype.kind == "f" else None
        self.normalisation = normalisation(self.model, settings, default)
        self.min_score = float(settings.get("min_score", MIN_SCORE))
        self.person_class = int(settings.get("person_class", 0))
        self._detections(np.zeros((size[1], size[0], 3), np.uint8))

    def boxes(
        self, image: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float32[np.ndarray, "n 4"], Float32[np.ndarray, "n"]]:
        """Person boxes (xyxy px, inside the RGB image, at least a pixel wide and high) and scores, best first."""
        height, width = image.shape[:2]
        across, down = self.size
        scale = min(across / width, down / height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)
        canvas = np.full((down, across, 3), GREY, np.uint8)
        canvas[: size[1], : size[0]] = small
        rows = self._detections(canvas)
        boxes = (rows[:, :4] * np.asarray([width / size[0], height / size[1]] * 2, np.float32)).clip(
            0, np.asarray([width, height] * 2, np.float32)
        )
        real = np.all(boxes[:, 2:] - boxes[:, :2] >= 1, axis=1)
        boxes, scores = boxes[real], rows[real, 4]
        order = np.argsort(-scores, kind="stable")
        few_enough(len(order), str(self.model.path))
        return boxes[order], scores[order]

    def _detections(self, canvas: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "n 5"]:
        """Box and score of each person, in pixels of the canvas."""
        outputs = self.model.run(self.normalisation(canvas))
        named = dict(zip(self.model.outputs, outputs, strict=True))
        first, *others = outputs if "dets" not in named else [named.pop("dets"), *named.values()]
        single = first.ndim == 2 or (first.ndim == 3 and len(first) == 1)
        rows = first.reshape(-1, 5) if single and first.shape[-1] == 5 else None
        labels = others[0].reshape(-1) if others else None
        if rows is None or len(others) > 1 or (labels is not None and len(labels) != len(rows)):
            raise InputError(
                f"its outputs ({self.model.described(outputs)}) are not boxes n×5 with their classes n",
                where=str(self.model.path),
                fix="Export it with non-maximum suppression inside (MMDeploy: end2end).",
            )
        chosen = rows[:, 4] >= self.min_score
        if labels is not None:
            chosen &= labels == self.person_class
        kept = rows[chosen].astype(np.float32)
        kept[:, 4] = kept[:, 4].clip(0, 1)
        return kept
