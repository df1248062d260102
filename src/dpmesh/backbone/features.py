"""What every backbone gives the regressor."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from dpmesh.backbone.joint_reading import JointsRead


@dataclass(frozen=True)
class Features:
    """fused: (b, C, 8, 8). maps: size -> (b, joints, size, size), how strongly each cell looks at each joint
    (none without cross-attention).

    read: joints read off the finest map, if the backbone does that.
    """

    fused: Tensor
    maps: dict[int, Tensor]
    read: JointsRead | None = None

    def times(self, felt: Float[Tensor, " b"]) -> "Features":
        """The features of each person times a factor: with 0 the picture might not be there."""
        read = None if self.read is None else self.read.times(felt)
        return Features(self.fused * felt[:, None, None, None], self.maps, read)
