"""What a stage trains, as a module of its own that Fabric may wrap for several processes: weights, losses, figures."""

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

    backbone: of the image backbone, whose matrices `Settings.optimizer` may treat otherwise.
    loss_weights: they weigh losses, and are neither decayed nor counted in the clipping.
    """

    name: str
    parameters: list[nn.Parameter]
    factor: float = 1.0
    backbone: bool = False
    loss_weights: bool = False


class Objective(nn.Module, ABC):
    """One stage at work. The model inside knows nothing of it.

    mixed: Settings.precision is for its steps; others are always in fp32.
    """

    mixed: ClassVar[bool] = True

    @abstractmethod
    def forward(self, batch: Tensors, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss of a part of a batch and its unweighted terms."""

    @abstractmethod
    def groups(self) -> list[Group]:
        """Everything that this stage trains, and nothing else."""

    @abstractmethod
    def figures(self) -> dict[str, float]:
        """How good it is on the validation split. {} where nothing tells."""

    def validations(self) -> list[dict[str, Any]]:
        """The lines of validation.csv: one for each set that it is validated on."""
        found = self.figures()
        return [dict(found)] if found else []

    @abstractmethod
    def preview(self, batch: Tensors) -> UInt8[ndarray, "h w 3"] | None:
        """A picture of what it makes of a few people of the batch, or None."""

    @abstractmethod
    def save(self, folder: Path, provenance: dict[str, Any]) -> None:
        """Leave what was trained, for the next stage and for good."""
