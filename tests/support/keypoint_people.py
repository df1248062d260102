"""Keypoint files of one person or two, and what reading them gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpmesh.errors import InputError
from dpmesh.inference.detections import Detection
from dpmesh.inference.keypoints.files import read_keypoint_file

SIZE = (400, 600)
RNG = np.random.default_rng(0)
PERSON = np.concatenate([RNG.uniform(50, 350, (17, 2)), np.ones((17, 1))], 1).round(2)


def write(folder: Path, content: Any) -> Path:
    path = folder / "keypoints.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read_keypoints(
    path: Path, name: str, size: tuple[int, int] = SIZE, only_image: bool = True
) -> list[Detection]:
    return list(read_keypoint_file(path, name, size, only_image).people)


def coco(points: np.ndarray = PERSON, **more: Any) -> dict[str, Any]:
    return {"image_id": 1, "keypoints": points.reshape(-1).tolist(), **more}


def read(folder: Path, content: Any, **options: Any) -> list[Any]:
    return read_keypoints(write(folder, content), "a.jpg", SIZE, **options)


def refused(folder: Path, content: Any, *message: str, **options: Any) -> None:
    with pytest.raises(InputError) as error:
        read(folder, content, **options)
    for part in ("keypoints.json", *message):
        assert part in str(error.value)


def openpose(folder: Path, points: list[float]) -> Path:
    """An OpenPose file of one person."""
    path = folder / "k.json"
    path.write_text(json.dumps({"people": [{"pose_keypoints_2d": points}]}))
    return path


def points18(confidence: float = 0.9) -> list[float]:
    """COCO-18 within an image of 160×90 pixels."""
    xy = np.random.default_rng(2).uniform([40, 20], [90, 80], (18, 2))
    return np.concatenate([xy, np.full((18, 1), confidence)], 1).reshape(-1).tolist()
