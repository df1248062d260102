"""What is fuzzed: for each kind small valid inputs, and the call that has to read them or refuse in its own words.

A call gets a folder that holds one damaged seed. It may return, or raise DPMeshError; what it returns is checked.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import seeds
import torch

from dpmesh.body.files import load_body
from dpmesh.body.identify import recognise
from dpmesh.body.layer import BodyModel
from dpmesh.body.unpickle import load_pickle
from dpmesh.checkpoint import load_weights, read_config
from dpmesh.errors import DPMeshError
from dpmesh.evaluate.compare import compare
from dpmesh.evaluate.packed import open_packed
from dpmesh.evaluate.qualitative.comparison import stored_record
from dpmesh.evaluate.report import markdown, read
from dpmesh.evaluate.results import load
from dpmesh.evaluate.tables import tables
from dpmesh.geometry.crop import Crop
from dpmesh.inference.detections import Detection
from dpmesh.inference.images import read_image
from dpmesh.inference.keypoints.files import read_keypoint_file
from dpmesh.inference.options import PredictOptions
from dpmesh.inference.output_formats import wanted_scene
from dpmesh.inference.preprocess import PreparedImage, model_inputs, prepare_image
from dpmesh.inference.result_folder import plan_result
from dpmesh.model import DPMesh
from dpmesh.tensor_files import read_tensors
from dpmesh.train.checkpoints import latest_checkpoint
from dpmesh.train.config_file import read_settings

logging.disable(logging.CRITICAL)
cv2.setNumThreads(0)  # its threads do not survive a fork
Files = dict[str, bytes]


@dataclass(frozen=True)
class Kind:
    """seeds: files by name, made once. targets: which of a seed's files are damaged (all). call: reads the folder."""

    seeds: Callable[[], list[Files]]
    call: Callable[[Path], None]
    targets: tuple[str, ...] = field(default=())


def _only(folder: Path, *suffixes: str) -> Path:
    """The path of the seed's one file; if it was deleted, a path without a file."""
    paths = sorted(p for p in folder.iterdir() if not suffixes or p.suffix in suffixes)
    return paths[0] if paths else folder / f"missing{suffixes[0] if suffixes else ''}"


class NoDetector:
    """Returns people without keypoints for boxes; detecting people is an error."""

    def __call__(self, image: np.ndarray, max_people: int = 20) -> Any:
        raise AssertionError("the detector is not under test")

    def keypoints_in_boxes(
        self, image: np.ndarray, boxes: np.ndarray, scores: Any = None
    ) -> tuple[Detection, ...]:
        return tuple(Detection(box, np.zeros((17, 3), np.float32), 0.5) for box in boxes)


def _inputs_are_sound(job: PreparedImage) -> None:
    """The model's inputs are finite."""
    assert len(job.people) == len(job.crops)
    if job.persons:
        inputs = model_inputs(job.persons, "crop", torch.device("cpu"))
        for name in ("crop", "visible", "focal"):
            assert bool(torch.isfinite(getattr(inputs, name)).all()), f"{name} is not finite"
        assert bool(torch.isfinite(inputs.joints[inputs.visible > 0]).all()), "a visible joint is not finite"
        assert bool((inputs.focal > 0).all()), "a focal length is not positive"


def _image(folder: Path) -> None:
    image = read_image(_only(folder), 4_000_000)
    rgb = image.rgb
    assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3 and min(rgb.shape) > 0
    assert image.exif_focal is None or 0 < image.exif_focal < np.inf
    height, width = rgb.shape[:2]
    Crop.around(np.array([0, 0, width, height], np.float32), 1.25).warp(rgb)


def _keypoints(folder: Path) -> None:
    path = _only(folder)
    _people_are_sound(path)
    _inputs_are_sound(prepare_image(NoDetector(), seeds.park(), PredictOptions(keypoints=path)))


def _people_are_sound(path: Path) -> None:
    for person in read_keypoint_file(path, "park.jpg", (576, 1024)).people:
        assert np.isfinite(person.box).all() and np.isfinite(person.keypoints30).all()
        assert (person.box[2:] > person.box[:2]).all(), "a box without area"
        assert 0 <= person.score <= 1


def _boxes(folder: Path) -> None:
    path = _only(folder)
    boxes = (
        str(path) if path.suffix == ".json" else path.read_bytes().decode("latin1") if path.is_file() else ""
    )
    _inputs_are_sound(prepare_image(NoDetector(), seeds.plain_image(), PredictOptions(boxes=boxes)))


def _toml(folder: Path) -> None:
    settings = read_settings(_only(folder, ".toml"))
    assert all(stage.name for stage in settings.stages)


class Small(torch.nn.Module):
    """A model whose weights are read in a millisecond."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)
        self.register_buffer("count", torch.zeros(2, dtype=torch.int64))


def _weights(folder: Path) -> None:
    if (folder / seeds.WHOLE).exists():
        (folder / "model.safetensors").symlink_to(seeds.EMBEDDED / "model.safetensors")
        DPMesh.from_pretrained(folder)
        return
    config, provenance = read_config(folder)
    assert isinstance(config, dict) and isinstance(provenance, dict)
    load_weights(Small(), folder)


def _tensors(folder: Path) -> None:
    path = _only(folder)
    assert all(isinstance(value, torch.Tensor) for value in read_tensors(path).values())


def _body(folder: Path) -> None:
    path = _only(folder)
    recognise(path)
    posed = BodyModel(load_body(path))(torch.zeros(1, 10), torch.eye(3).expand(1, 24, 3, 3))
    assert bool(torch.isfinite(posed.vertices).all()), "vertices are not finite"


def _pickle(folder: Path) -> None:
    path = _only(folder)
    load_pickle(path)
    recognise(path)
    load_body(path)


def _checkpoint(folder: Path) -> None:
    state = latest_checkpoint(folder)
    assert state is None or isinstance(state, dict), "a checkpoint that is no state"


def _shards(folder: Path) -> None:
    source = open_packed(folder)
    persons = source.persons([0])
    for name in ("joints", "visible", "truth_joints", "focal_crop"):
        assert np.isfinite(getattr(persons, name)).all(), f"{name} is not finite"


def _results(folder: Path) -> None:
    """Every reader of a result. One that refuses the files does not keep the others from reading."""
    first, second = folder / "damaged", seeds.evaluation_result()
    _each(
        lambda: markdown(read(first)),
        lambda: tables([read(first)]),
        lambda: load(first / "rows.npz"),
        lambda: compare(first, second),
        lambda: compare(second, first),
        lambda: plan_result(first, wanted_scene("0" * 64, "a.jpg", {}, ("json",)), False),
        lambda: stored_record(first),
    )


def _each(*calls: Callable[[], object]) -> None:
    refused: list[DPMeshError] = []
    for call in calls:
        try:
            call()
        except DPMeshError as error:
            refused.append(error)
    if refused:
        raise refused[0]


KINDS: dict[str, Kind] = {
    "images": Kind(seeds.images, _image),
    "keypoints": Kind(seeds.keypoints, _keypoints),
    "boxes": Kind(seeds.boxes, _boxes),
    "toml": Kind(seeds.settings, _toml),
    "weights": Kind(seeds.weights, _weights, ("config.json", "model.safetensors")),
    "tensors": Kind(seeds.tensors, _tensors),
    "bodies": Kind(seeds.bodies, _body),
    "pickles": Kind(seeds.pickles, _pickle),
    "checkpoints": Kind(seeds.checkpoints, _checkpoint, ("last.ckpt", "before.ckpt")),
    "shards": Kind(seeds.shards, _shards),
    "results": Kind(seeds.results, _results),
}
