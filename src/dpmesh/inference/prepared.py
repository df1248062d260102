"""Predictions of a video's frames: several at a time, with one forward pass where the predictor takes two."""

from collections.abc import Sequence

import torch

from dpmesh.inference.flip_test import FlipTest, predict_partly_mirrored
from dpmesh.inference.options import RecordedOptions
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.preprocess import PersonInput, PreparedImage, model_inputs
from dpmesh.inference.scene import Scene
from dpmesh.model import DPMesh
from dpmesh.types import Prediction


class FramePredictor(Predictor):
    """The same predictor for frames that are prepared.

    single: one forward pass in place of two (flip_test.py); refining, if any, starts from it. alternate: in every
    second frame it is of the mirror images, so that a mean over the frames is one over both.
    """

    def __init__(self, predictor: Predictor, single: bool = True, alternate: bool = False) -> None:
        self.__dict__.update(vars(predictor))
        if single and isinstance(predictor.model, FlipTest):
            self.model = predictor.model.model
        self.alternate = alternate and isinstance(self.model, DPMesh)
        self._count = 0
        self._mirrored: dict[int, bool] = {}
        """id of a prepared image -> whether its people are mirrored."""

    def scenes(self, images: Sequence[PreparedImage], options: RecordedOptions) -> list[Scene]:
        """One scene per frame; people share batches. options: as the scenes record them."""
        self._mirrored = {id(image): bool(i % 2) for i, image in enumerate(images, self._count)}
        self._count += len(images)
        return self._predict(images, options)

    def _forward(self, persons: list[PersonInput]) -> Prediction:
        if not self.alternate:
            return super()._forward(persons)
        inputs = model_inputs(persons, self.model.camera, self.device)
        which = torch.tensor([self._mirrored[id(person.prepared)] for person in persons], device=self.device)
        assert isinstance(self.model, DPMesh)
        prediction = predict_partly_mirrored(self.model, inputs, which)
        return prediction if self.refiner is None else self.refiner(prediction, inputs)
