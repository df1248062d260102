"""A run on many images: what is the same for all of them, one image to do, and what became of it.

Light to import: the command compares results, and hands images to other processes, without torch.
"""

import gc
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dpmesh.errors import ConfigError
from dpmesh.inference.options import ModelOptions, PredictOptions
from dpmesh.inference.output_formats import Colouring
from dpmesh.inference.people_rows import Row

if TYPE_CHECKING:
    from dpmesh.inference.predictor import Predictor

GROUP = 8
"""Images that are predicted together."""


def load_predictor(options: ModelOptions) -> "Predictor":
    """The predictor of these options."""
    from dpmesh.inference.predictor import Predictor

    return Predictor.from_pretrained(**vars(options))


class Task(NamedTuple):
    """One image. name: its result's. formats: of the folder to write; none gives rows instead. overwrite: replace."""

    path: Path
    name: str
    formats: tuple[str, ...]
    overwrite: bool


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is the same for all images of a run. inputs: paths of all images, where there are several."""

    model: ModelOptions
    people: PredictOptions
    out: Path
    colour: Colouring = "person"
    glb_image: bool = False
    inputs: tuple[str, ...] = ()
    load: "Callable[[ModelOptions], Predictor]" = field(default=load_predictor)

    def predictor(self) -> "Predictor":
        """Load it. Raises DPMeshError, also for colours that its weights do not give."""
        with _no_collection_while_loading():
            predictor = self.load(self.model)
        if self.colour == "sigma" and not predictor.predicts_sigma:
            raise ConfigError(
                "these weights do not predict their error",
                where=f"--weights {self.model.weights}",
                fix="Drop --colour sigma, or train it (docs/guide/training.md, the stage `uncertainty`).",
            )
        return predictor


class Outcome(NamedTuple):
    """What became of one image. error: why it failed, else empty. summary: people and what happened, for a log.

    rows: for a table, without a folder; run: its key, and weights and options. used: entries of a keypoint file.
    """

    task: Task
    error: str = ""
    people: int = 0
    fallbacks: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    folder: str = ""
    rows: tuple[Row, ...] = ()
    run: tuple[str, dict[str, object]] | None = None
    used: frozenset[str] = frozenset()


@contextmanager
def _no_collection_while_loading() -> Generator[None]:
    """Pauses garbage collection in a process that has yet to import torch.

    Loading makes half a million objects that stay; searching them for garbage takes a tenth of the start-up time.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
