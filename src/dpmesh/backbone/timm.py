"""Other image backbones for the ablation (paper 4.4, Table 4), through timm: heatmaps join the early features.

timm comes with the extra `timm` and is imported only when such a backbone is built.
"""

import importlib
import re
from collections.abc import Callable
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
from dpmesh.geometry.crop_camera import draw_heatmaps

CELL_SIGMA = 2.5 / 32
"""Sigma of the heatmaps as a fraction of their size: the Gaussians of the diffusion backbone at any resolution."""


class Family(NamedTuple):
    """Where the heatmaps join the models of one of timm's modules."""

    stem: str
    """The module whose output the heatmaps join."""
    width: str
    """A layer whose weight has one row for each channel of that output."""
    sized: bool
    """Whether timm needs the image size to build the model."""
    layout: Literal["channels first", "channels last", "tokens"]
    """Memory layout of the feature maps."""


FAMILIES = {
    "resnet": Family("maxpool", "bn1", False, "channels first"),
    "hrnet": Family("act2", "bn2", False, "channels first"),
    "vision_transformer": Family("patch_embed", "patch_embed.proj", True, "tokens"),
    "swin_transformer_v2": Family("patch_embed", "patch_embed.proj", True, "channels last"),
}
"""timm's module -> its family."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmConfig:
    """A backbone from timm."""

    kind: Literal["timm"] = "timm"
    """Distinguishes the backbones in a config file."""
    model: str = "resnet50"
    """timm's name of a model, of a family in FAMILIES."""
    pretrained: bool = False
    """Start from timm's weights, which are downloaded when a new model is built; False starts from random weights.
    Ignored where stored weights are loaded."""
    joints: int = 30
    """Heatmap channels."""
    fused_channels: int = 2048
    """Channels of the fused 8×8 map."""
    fused_groups: int = 16
    """Groups of the group norm of the fused map."""
    reading: bool = False
    """Also read joints off the fused map (joint_reading.py). Not in the paper."""
    embed_dim: int = 0
    """Replaces the model's own setting of this name in timm (Swin); 0 keeps it."""
    depths: tuple[int, ...] = ()
    """Replaces the model's own setting of this name in timm (Swin); empty keeps it."""
    num_heads: tuple[int, ...] = ()
    """Replaces the model's own setting of this name in timm (Swin); empty keeps it."""

    def __post_init__(self) -> None:
        check_sizes(self, ("embed_dim",))

    @property
    def sizes(self) -> dict[str, Any]:
        """The replaced settings, as arguments of timm.create_model."""
        settings = {"embed_dim": self.embed_dim, "depths": self.depths, "num_heads": self.num_heads}
        return {name: value for name, value in settings.items() if value}


class _StemDone(Exception):
    """Ends the forward pass that measures the stem's output."""


class TimmBackbone(nn.Module):
    """A timm model whose early features are joined by the heatmaps; `encode`, `draw_heatmaps`, then `forward`.

    A 1×1 convolution brings early features and heatmaps back to the width of the features. It starts as the identity
    on the features and zero on the heatmaps, so that a pretrained model starts unchanged. No attention maps.
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
        for name in ("mean", "std"):  # the normalisation of the pretrained weights
            values = torch.tensor(self.model.pretrained_cfg[name], dtype=torch.float32)
            self.register_buffer(name, values[:, None, None], persistent=False)
        self.early_size = self._measure_stem()

    def encode(self, crop: Float[Tensor, "b 3 256 256"]) -> Float[Tensor, "b 3 256 256"]:
        """The crop, normalised as the model expects it. crop: RGB in [0, 1]."""
        return (crop - self.get_buffer("mean")) / self.get_buffer("std")

    def draw_heatmaps(
        self, joints: Float[Tensor, "b j 2"], visible: Float[Tensor, "b j"]
    ) -> Float[Tensor, "b j s s"]:
        """The joints as heatmaps of the early features' size. joints: crop pixels. visible: 0 leaves a heatmap
        empty."""
        return draw_heatmaps(joints, visible, size=self.early_size, sigma=CELL_SIGMA * self.early_size)

    def forward(
        self,
        image: Float[Tensor, "b 3 256 256"],
        hint: Float[Tensor, "b j s s"],
        prompt: None = None,
    ) -> Features:
        """The model with the heatmaps joined after its stem. image: as `encode` returns it."""

        def join(_stem: nn.Module, _inputs: Any, early: Tensor) -> Tensor:
            return self.join_heatmaps(early, hint)

        last = self._with_stem_hook(join, image)
        if self.family.layout == "tokens":
            last = last[:, self.model.num_prefix_tokens :]
        fused = self.mix(self.down(self._to_maps(last)))  # (b, c, 8, 8)
        return Features(fused, {}, None if self.reading is None else self.reading(fused))

    def join_heatmaps(self, early: Tensor, hint: Float[Tensor, "b j s s"]) -> Tensor:
        """Early features joined with the heatmaps, in the model's own layout."""
        maps = self._to_maps(early)
        joined = self.join(torch.cat([maps, hint.to(maps.dtype)], dim=1))
        if self.family.layout == "tokens":
            return joined.flatten(2).transpose(1, 2)
        return joined.permute(0, 2, 3, 1) if self.family.layout == "channels last" else joined

    def _with_stem_hook(self, hook: Callable[[nn.Module, Any, Tensor], Any], image: Tensor) -> Tensor:
        """Run the model with a forward hook on its stem: timm's models take no second input."""
        handle = self.model.get_submodule(self.family.stem).register_forward_hook(hook)
        try:
            return self.model.forward_features(image)
        finally:
            handle.remove()

    @torch.no_grad()
    def _measure_stem(self) -> int:
        """Cells of the early features along a side, from one pass that ends after the stem."""
        sizes: list[int] = []

        def measure(_stem: nn.Module, _inputs: Any, early: Tensor) -> None:
            sizes.append(int(self._to_maps(early).shape[-1]))
            raise _StemDone

        training = self.model.training
        self.model.eval()  # no batch statistics
        try:
            self._with_stem_hook(measure, self.get_buffer("mean").new_zeros(1, 3, CROP, CROP))
        except _StemDone:
            pass
        finally:
            self.model.train(training)
        return sizes[0]

    def _to_maps(self, x: Tensor) -> Float[Tensor, "b c s s"]:
        if self.family.layout == "tokens":
            side = isqrt(x.shape[1])
            return x.mT.reshape(len(x), -1, side, side)
        return x.permute(0, 3, 1, 2) if self.family.layout == "channels last" else x


def _build(config: TimmConfig) -> tuple[Any, Family]:
    """timm's model without its classifier, and its family. Raises ConfigError, WeightsError."""
    timm = load_timm("this backbone")
    where = f"TimmConfig.model={config.model}"
    if not timm.is_model(config.model):
        raise ConfigError("timm has no such model", where=where, fix='List them with timm.list_models("*").')
    name = timm.model_entrypoint(config.model).__module__.rpartition(".")[2]
    family = FAMILIES.get(name)
    if family is None:
        raise ConfigError(
            f"heatmaps cannot join models of timm's {name} yet",
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
            f"the pretrained weights cannot be downloaded ({reason})",
            where=where,
            fix="To start from random weights: pretrained=False.",
        ) from error
    return model, family


def load_timm(what: str) -> ModuleType:
    """Import timm. what: the feature that needs it, for the message. Raises ConfigError where it is not installed."""
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
    """Make torchvision importable with a CPU build of torch.

    timm imports one layer from torchvision, whose packaged build is made for CUDA. With a CPU build of torch its
    compiled operators are missing, and its import fails where it registers their shapes; so the missing operators get
    a signature here. Nothing calls them.
    """
    for _ in range(8):  # two as of torchvision 0.28
        try:
            importlib.import_module("torchvision")
            return
        except RuntimeError as error:
            missing = re.search(r"operator (torchvision::\w+) does not exist", str(error))
            if missing is None:
                raise
            torch.library.define(missing[1], "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
