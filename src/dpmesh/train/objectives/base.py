"""The objective of a stage: a module with trained weights, losses and validation figures, which Fabric may wrap."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor, nn

from dpmesh.train.dataloader import Part, Tensors


@dataclass(frozen=True)
class Group:
    """Parameters with a learning rate of their own: `factor` times the stage's.

    backbone: of the image backbone, for whose matrices `Settings.optimizer` may use Muon.
    loss_weights: learned weights of losses, neither decayed nor counted in the gradient's norm.
    """

    name: str
    parameters: list[nn.Parameter]
    factor: float = 1.0
    backbone: bool = False
    loss_weights: bool = False


class Objective(nn.Module, ABC):
    """What a stage trains and how. The model inside does not depend on it.

    mixed: whether Settings.precision applies to its steps; else they are in fp32.
    """

    mixed: ClassVar[bool] = True

    @abstractmethod
    def forward(self, batch: Tensors, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss of a part of a batch and its unweighted terms."""

    @abstractmethod
    def groups(self) -> list[Group]:
        """All parameters that this stage trains."""

    @abstractmethod
    def figures(self) -> dict[str, float]:
        """Figures on the validation split; {} without one."""

    def validations(self) -> list[dict[str, Any]]:
        """The lines of validation.csv: one for each validation set."""
        figures = self.figures()
        return [dict(figures)] if figures else []

    @abstractmethod
    def preview(self, batch: Tensors) -> UInt8[ndarray, "h w 3"] | None:
        """An image of predictions for a few people of the batch, or None."""

    @abstractmethod
    def save(self, folder: Path, provenance: dict[str, Any]) -> None:
        """Save the trained weights, which the next stage loads."""
