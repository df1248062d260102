"""Predictions of images that are prepared already, and with one forward pass where the predictor takes two."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from dpmesh.inference.flip_test import FlipTest, predict_partly_mirrored
from dpmesh.inference.options import RecordedOptions
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.preprocess import PersonInput, PreparedImage, model_inputs
from dpmesh.inference.scene import Scene
from dpmesh.model import DPMesh
from dpmesh.types import Prediction


def predict_prepared(
    predictor: Predictor, prepared: PreparedImage, options: RecordedOptions | None = None
) -> Scene:
    """Predict the people of a prepared image, which is not changed. options: as the scene records them."""
    return predict_together(predictor, [prepared], options)[0]


def predict_together(
    predictor: Predictor, images: Sequence[PreparedImage], options: RecordedOptions | None = None
) -> list[Scene]:
    """Of several images, whose people share batches."""
    own = [replace(prepared, fallbacks=prepared.fallbacks.copy()) for prepared in images]
    return predictor.predict_prepared(own, options or {})


class SinglePass(Predictor):
    """A predictor with one forward pass in place of two (flip_test.py); refining, if any, starts from it.

    alternate: every second image is predicted from its mirror images, so that a mean over the frames of a video is one
    over both.
    """

    def __init__(self, predictor: Predictor, alternate: bool = False) -> None:
        self.__dict__.update(vars(predictor))
        if isinstance(predictor.model, FlipTest):
            self.model = predictor.model.model
        self.alternate = alternate and isinstance(self.model, DPMesh)
        self._count = 0
        self._mirrored: dict[int, bool] = {}
        """id of a prepared image -> whether its people are mirrored."""

    def predict_prepared(self, images: Sequence[PreparedImage], options: RecordedOptions) -> list[Scene]:
        self._mirrored = {id(image): bool(i % 2) for i, image in enumerate(images, self._count)}
        self._count += len(images)
        return super().predict_prepared(images, options)

    def _forward(self, persons: list[PersonInput]) -> Prediction:
        if not self.alternate:
            return super()._forward(persons)
        inputs = model_inputs(persons, self.model.camera, self.device)
        which = torch.tensor([self._mirrored[id(person.prepared)] for person in persons], device=self.device)
        assert isinstance(self.model, DPMesh)
        prediction = predict_partly_mirrored(self.model, inputs, which)
        return prediction if self.refiner is None else self.refiner(prediction, inputs)
