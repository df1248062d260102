"""Other image backbones for the ablation (paper 4.4, Table 4), through timm: heatmaps join the early features.

timm comes with the extra `timm` and is imported only when such a backbone is built.
"""

import importlib
import re
from dataclasses import dataclass
from math import isqrt
from types import ModuleType
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.backbone.features import Features
from dpmesh.backbone.joint_reading import FusedReading
from dpmesh.config_io import check_sizes
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.geometry import CROP
from dpmesh.geometry.heatmap import draw_heatmaps

CELL_SIGMA = 2.5 / 32
"""The heatmaps' sigma as a fraction of the map: the same Gaussians as the diffusion backbone's, finer or coarser."""


class Family(NamedTuple):
    """stem: the module after which the heatmaps join. width: the layer whose weight has as many rows as the early
    features have channels. sized: whether timm wants to know the crop's size. layout: of the last map."""

    stem: str
    width: str
    sized: bool
    layout: Literal["channels first", "channels last", "tokens"]


FAMILIES = {
    "resnet": Family("maxpool", "bn1", False, "channels first"),
    "hrnet": Family("act2", "bn2", False, "channels first"),
    "vision_transformer": Family("patch_embed", "patch_embed.proj", True, "tokens"),
    "swin_transformer_v2": Family("patch_embed", "patch_embed.proj", True, "channels last"),
}
"""timm's module -> what is to be known of its models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmConfig:
    """model: timm's name, of a family in FAMILIES. fused_channels: width of the 8×8 map for the regressor.

    pretrained: start from timm's weights, fetched from its hub when a new model is built; never when stored weights
    are loaded. False starts at random.
    reading: also read joints off the fused map (joint_reading.py). Not in the paper.
    embed_dim, depths, num_heads: sizes other than those of the name, by timm's words for a Swin; empty are the name's.
    """

    kind: Literal["timm"] = "timm"
    model: str = "resnet50"
    pretrained: bool = False
    joints: int = 30
    fused_channels: int = 2048
    fused_groups: int = 16
    reading: bool = False
    embed_dim: int = 0
    depths: tuple[int, ...] = ()
    num_heads: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self, ("embed_dim",))

    @property
    def sizes(self) -> dict[str, Any]:
        """What timm is told of them."""
        told = {"embed_dim": self.embed_dim, "depths": self.depths, "num_heads": self.num_heads}
        return {name: value for name, value in told.items() if value}


class TimmBackbone(nn.Module):
    """Early features with the heatmaps beside them, brought back to their width; then the model as it is.

    The joining convolution starts as the identity on the features and zero on the heatmaps, so that a pretrained
    model starts as itself. There are no attention maps.
    """

    def __init__(self, config: TimmConfig) -> None:
        super().__init__()
        self.config = config
        self.model, self.family = _build(config)
        early = int(self.model.get_submodule(self.family.width).weight.shape[0])
        self.join = nn.Conv2d(early + config.joints, early, 1)
        nn.init.dirac_(self.join.weight)
        nn.init.zeros_(self.join.bias)  # pyright: ignore[reportArgumentType]  (there is one)
        width = int(self.model.num_features)
        halved = self.family.layout == "tokens"  # 16×16 of them
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1) if halved else nn.Identity()
        self.mix = nn.Sequential(
            nn.Conv2d(width, config.fused_channels, 1),
            nn.GroupNorm(config.fused_groups, config.fused_channels),
            nn.ReLU(),
        )
        self.reading = (
            FusedReading(config.fused_channels, config.joints, config.fused_groups)
            if config.reading
            else None
        )
        for name in ("mean", "std"):  # what the weights of that name were trained with
            values = torch.tensor(self.model.pretrained_cfg[name], dtype=torch.float32)
            self.register_buffer(name, values[:, None, None], persistent=False)

    def forward(
        self,
        crop: Float[Tensor, "b 3 256 256"],
        joints: Float[Tensor, "b j 2"],
        visible: Float[Tensor, "b j"],
    ) -> Features:
        def add_heatmaps(_stem: nn.Module, _given: Any, early: Tensor) -> Tensor:
            return self.with_heatmaps(early, joints, visible)

        # timm's models take one input, so the second one comes in behind the stem.
        handle = self.model.get_submodule(self.family.stem).register_forward_hook(add_heatmaps)
        try:
            last = self.model.forward_features((crop - self.get_buffer("mean")) / self.get_buffer("std"))
        finally:
            handle.remove()
        if self.family.layout == "tokens":
            last = last[:, self.model.num_prefix_tokens :]
        fused = self.mix(self.down(self._to_maps(last)))  # (b, c, 8, 8)
        return Features(fused, {}, None if self.reading is None else self.reading(fused))

    def with_heatmaps(
        self, early: Tensor, joints: Float[Tensor, "b j 2"], visible: Float[Tensor, "b j"]
    ) -> Tensor:
        """The early features, in the model's own layout, after the joints have been drawn beside them."""
        maps = self._to_maps(early)
        size = maps.shape[-1]
        hint = draw_heatmaps(joints, visible, size=size, sigma=CELL_SIGMA * size)
        joined = self.join(torch.cat([maps, hint.to(maps.dtype)], dim=1))
        if self.family.layout == "tokens":
            return joined.flatten(2).transpose(1, 2)
        return joined.permute(0, 2, 3, 1) if self.family.layout == "channels last" else joined

    def _to_maps(self, x: Tensor) -> Float[Tensor, "b c s s"]:
        if self.family.layout == "tokens":
            side = isqrt(x.shape[1])
            return x.mT.reshape(len(x), -1, side, side)
        return x.permute(0, 3, 1, 2) if self.family.layout == "channels last" else x


def _build(config: TimmConfig) -> tuple[Any, Family]:
    """timm's model without its classifier, and its family."""
    timm = load_timm("this backbone")
    where = f"TimmConfig.model={config.model}"
    if not timm.is_model(config.model):
        raise ConfigError("timm has no such model", where=where, fix='List them with timm.list_models("*").')
    name = timm.model_entrypoint(config.model).__module__.rpartition(".")[2]
    family = FAMILIES.get(name)
    if family is None:
        raise ConfigError(
            f"models of timm's {name} have no place for heatmaps yet",
            where=where,
            fix=f"Take one of {', '.join(FAMILIES)}.",
        )
    size = {"img_size": CROP} if family.sized else {}
    try:
        model = timm.create_model(
            config.model, pretrained=config.pretrained, num_classes=0, **size, **config.sizes
        )
    except TypeError as error:
        raise ConfigError(f"timm's {name} takes no such sizes ({error})", where=where) from error
    except (OSError, RuntimeError) as error:
        if not config.pretrained:
            raise
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"its weights cannot be had ({reason})", where=where, fix="Without them: pretrained=False."
        ) from error
    return model, family


def load_timm(what: str) -> ModuleType:
    """timm, which `what` needs. Raises ConfigError where it is not installed."""
    try:
        let_torchvision_load()
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{what} needs timm, and {error.name} is not installed",
            where="timm",
            fix="Install it with: pip install 'dpmesh[timm]'",
        ) from error


def let_torchvision_load() -> None:
    """timm takes one layer from torchvision, whose packaged build is made for CUDA. Beside a CPU build of torch its
    compiled operators are missing, and importing it fails where it describes them; so they are given a signature.
    Nothing here calls them."""
    for _ in range(8):  # two as of torchvision 0.28
        try:
            importlib.import_module("torchvision")
            return
        except RuntimeError as error:
            missing = re.search(r"operator (torchvision::\w+) does not exist", str(error))
            if missing is None:
                raise
            torch.library.define(missing[1], "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
