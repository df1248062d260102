"""SynthOcc's people as scenes of one person, which `Predictor.correct` and hypotheses take."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from dpmesh import Predictor, Scene
from dpmesh.evaluate.interfaces import Persons
from dpmesh.evaluate.registry import open_source
from dpmesh.evaluate.synthocc import LEVELS, SynthOcc
from dpmesh.geometry import CROP
from dpmesh.geometry.camera import intrinsics
from dpmesh.geometry.crop import Crop
from dpmesh.inference.detections import Detection
from dpmesh.inference.images import DecodedImage
from dpmesh.inference.predictor import predict_prepared
from dpmesh.inference.preprocess import EXPAND, PreparedImage
from dpmesh.skeletons import COCO17, H36M14_ROWS, H36M17, JOINTS30, convert

EVALUATED = [H36M17.indices_in(JOINTS30)[row] for row in H36M14_ROWS]
"""The joints of MPJPE in JOINTS30."""
_MARGIN = CROP * (1 - 1 / EXPAND) / 2
BOX = np.array([_MARGIN, _MARGIN, CROP - _MARGIN, CROP - _MARGIN], np.float32)
"""The box whose crop is the whole image."""
PROTOCOLS = {"detector": "synthocc@detector", "noise": "synthocc"}


class SyntheticPerson(NamedTuple):
    """pixels: true joints (JOINTS30), px. visible: hidden by nothing, also not by the own body. joints: true joints of
    Human3.6M's set, joints30: of JOINTS30; metres."""

    index: int
    level: int
    scene: Scene
    pixels: Float[np.ndarray, "30 2"]
    visible: Bool[np.ndarray, "30"]
    joints: Float[np.ndarray, "17 3"]
    joints30: Float[np.ndarray, "30 3"]

    def errors(self, predictor: Predictor, vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "14"]:
        """Of the 14 joints of a body, less the pelvis, mm."""
        own = predictor.model.body.regress(torch.from_numpy(vertices[None]), "h36m17")[0].double().numpy()
        off = (own - own[:1]) - (self.joints - self.joints[:1])
        return 1000 * np.linalg.norm(off[list(H36M14_ROWS)], axis=1)


def people(
    predictor: Predictor, keypoints: str, data: Path | None, indices: Sequence[int]
) -> Iterator[SyntheticPerson]:
    """Predicted people of SynthOcc. keypoints: of PROTOCOLS."""
    source = open_source(PROTOCOLS[keypoints], data)
    assert isinstance(source, SynthOcc)
    for index in indices:
        persons, label = source.persons([index]), source.label(index)
        scene = predict_prepared(predictor, _prepared(persons))
        yield SyntheticPerson(
            index,
            index % LEVELS,
            scene,
            label.joints2d,
            label.visible,
            persons.truth_joints[0].astype(float),
            label.joints3d,
        )


def _prepared(persons: Persons) -> PreparedImage:
    known = persons.visible if persons.confidence is None else persons.confidence
    rows = np.concatenate([persons.joints[0], known[0][:, None]], 1).astype(np.float32)
    detection = Detection(BOX, convert(rows, JOINTS30, COCO17), 1.0, rows)
    K = intrinsics(float(persons.focal_crop[0]), (CROP, CROP))
    image = DecodedImage(persons.crops[0])
    crops = [Crop.around(BOX, EXPAND)]
    return PreparedImage(
        persons.ids[0], "", image, K, "given", [detection], 0.0, persons.fallbacks.copy(), crops
    )
