"""DPMesh: a crop of a person and noisy 2D keypoints in, a body out. `DPMesh.forward` is the paper's Figure 3."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpmesh.ablations import configuration
from dpmesh.assets import shipped
from dpmesh.backbone.diffusion import BackboneConfig, DiffusionBackbone
from dpmesh.backbone.features import Features
from dpmesh.backbone.prompt import ConstantPrompt, JointPrompt
from dpmesh.backbone.timm import TimmBackbone
from dpmesh.body.files import BodyArrays, free_body
from dpmesh.body.layer import BodyModel
from dpmesh.checkpoint import (
    CONFIG,
    Provenance,
    building,
    check_stored,
    load_weights,
    read_config,
    save_weights,
    uninitialised,
)
from dpmesh.config import PRESETS, DPMeshConfig, stored_config
from dpmesh.config_io import to_plain
from dpmesh.device import full_precision
from dpmesh.diffusion.lora import cross_attention, inject_lora, released_targets
from dpmesh.diffusion.precision import TYPES, run_in
from dpmesh.diffusion.unet import EncoderHalf
from dpmesh.diffusion.vae import VAEEncoder
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.geometry import CROP
from dpmesh.geometry.crop_camera import camera_translation
from dpmesh.geometry.rotations import rotation_from_6d
from dpmesh.pose_prior.prior import build_prior
from dpmesh.regressor.cascade import Regression, Regressor
from dpmesh.regressor.tokens import pose_head
from dpmesh.types import BodyParameters, Inputs, Prediction


class DPMesh(nn.Module):
    """One model, three sizes. It knows nothing of losses or training stages."""

    def __init__(self, config: DPMeshConfig, body: BodyArrays | None = None) -> None:
        """body: a licensed one; the shipped free body without it."""
        super().__init__()
        self.config = config
        self.provenance: Provenance = {}
        if isinstance(config.backbone, BackboneConfig):
            self.prompt = (JointPrompt if config.backbone.prompted else ConstantPrompt)(config.prompt)
            self.backbone = DiffusionBackbone(config.backbone)
        else:  # nothing there reads a prompt
            self.prompt = None
            self.backbone = TimmBackbone(config.backbone)
        for part in config.frozen:
            self.backbone.get_submodule(part).requires_grad_(False)
        if config.lora_rank and isinstance(self.backbone, DiffusionBackbone):
            self.backbone.unet.requires_grad_(False)
            wanted = cross_attention if config.lora_targets == "cross" else released_targets
            inject_lora(self.backbone.unet, config.lora_rank, wanted)
        self.regressor = Regressor(config.regressor)
        self.pose_prior = build_prior(config.pose_prior, config.token_mode)
        self.pose_tokens = pose_head(
            config.regressor.pose_code, self.pose_prior.latent_shape, config.token_width
        )
        self.body = BodyModel(free_body() if body is None else body)
        start_upright(self.regressor)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # narrow convolutions run up to three times faster on a CPU
                layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    @property
    def camera(self) -> Literal["crop", "image"]:
        """Whose focal length `Inputs` shall have (DPMeshConfig)."""
        return self.config.camera

    @property
    def tells_sigma(self) -> bool:
        """Whether `Prediction` has a joint_sigma."""
        return self.regressor.uncertainty is not None

    def forward(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        seen = self.look(inputs.crop, inputs.joints, inputs.visible)  # fused (b, c, 8, 8)
        answer = self.regress(seen, inputs.joints, inputs.visible)
        focal = inputs.focal[:1].expand_as(inputs.focal) if self.config.shared_focal else inputs.focal
        parameters = self.parameters_of(answer, focal)
        found = Prediction.of_body(
            self.body,
            parameters.rotations,
            answer.betas,
            parameters.transl,
            focal,
            root_6d=answer.root_6d,
            pose_latent=parameters.pose_latent,
            camera=answer.camera,
            joints_img=answer.joints_img,
            features=seen if features else None,
        )
        return replace(found, joint_sigma=self.sigma_of(answer, found.joints3d, found.joints2d))

    def look(
        self,
        crop: Float[Tensor, "b 3 256 256"],
        joints: Float[Tensor, "b j 2"],
        visible: Float[Tensor, "b j"],
        latent: Float[Tensor, "b z h w"] | None = None,
    ) -> Features:
        """What the backbone makes of the crop, told where the joints are as the configuration has it. latent: as
        DiffusionBackbone.forward."""
        if self.prompt is None:
            return self.backbone(crop, joints, visible)
        prompt = self.prompt(joints, visible)  # (b, 30, d)
        if latent is None:
            return self.backbone(crop, joints, visible, prompt)
        return self.backbone(crop, joints, visible, prompt, latent)

    def regress(
        self,
        seen: Features | None,
        joints: Float[Tensor, "b j 2"],
        visible: Float[Tensor, "b j"],
        read: Float[Tensor, "b j 4"] | None = None,
    ) -> Regression:
        """The regressor's answer. seen=None looks at no picture; `read` may then stand for what was read off one."""
        if seen is not None and seen.read is not None:
            read = seen.read.summary()
        memory = None if seen is None else self.regressor.remember(seen.fused)
        return self.regressor(memory, torch.cat([joints / CROP, visible[..., None]], -1), read)

    def sigma_of(
        self, answer: Regression, joints3d: Float[Tensor, "b 30 3"], joints2d: Float[Tensor, "b 30 2"]
    ) -> Float[Tensor, "b 30"] | None:
        """Prediction.joint_sigma of an answer and its body's joints."""
        head, log_scale = self.regressor.uncertainty, self.regressor.unsure(answer, joints3d, joints2d)
        return None if head is None or log_scale is None else head.sigma(log_scale)

    def parameters_of(self, answer: Regression, focal: Float[Tensor, " b"]) -> BodyParameters:
        """Root by Gram-Schmidt, pose through the prior, camera as a translation; always in fp32."""
        latent = self.pose_tokens(answer.pose_code).float()
        with full_precision(focal.device):
            body = self.pose_prior.decode_latent(latent)
            root = rotation_from_6d(answer.root_6d.float())
            transl = camera_translation(answer.camera.float(), focal, self.config.depth_scale)
            return BodyParameters(torch.cat([root[:, None], body], 1), answer.betas.float(), transl, latent)

    def run_backbone_in(self, dtype: torch.dtype) -> None:
        """Encoder, ControlNet and U-Net, weights and activations, in fp32, bf16 or fp16; fusion, regressor and body
        stay in fp32. Raises ConfigError for another type."""
        if dtype not in TYPES:
            raise ConfigError(f"{dtype} is none of {', '.join(map(str, TYPES))}", where="dtype")
        for part in list(self.backbone.modules()):
            if isinstance(part, VAEEncoder | EncoderHalf):
                run_in(part, dtype)

    @classmethod
    def from_config(
        cls, config: str | Mapping[str, Any] | DPMeshConfig, body: BodyArrays | None = None
    ) -> "DPMesh":
        """A model with random weights. config: a DPMeshConfig, or what `configuration` makes one of ("embedded")."""
        return cls(config if isinstance(config, DPMeshConfig) else configuration(config), body)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, body: BodyArrays | None = None, *, dtype: torch.dtype = torch.float32
    ) -> "DPMesh":
        """A model with stored weights, in evaluation mode.

        source: a folder with config.json and model.safetensors, or the name of shipped weights ("embedded").
        dtype: as run_backbone_in; the weights are never there in another type.
        Raises WeightsError where the folder does not hold exactly this model.
        """
        folder = Path(source)
        if not os.path.isdir(folder):  # which no name, however long, makes fail
            if (source := str(source)) not in SHIPPED_WEIGHTS:
                raise WeightsError(
                    "there is no such folder and no such shipped weights",
                    where=source,
                    fix=f"Shipped: {', '.join(SHIPPED_WEIGHTS)}.",
                )
            folder = shipped(f"{source}/config.json").parent
        plain, provenance = read_config(folder)
        with building(folder / CONFIG):
            stored = stored_config(plain, str(folder / CONFIG))
            config = stored.as_stored()
            if config not in PRESETS.values():  # of another's sizes nothing is known: first without memory
                with torch.device("meta"):
                    check_stored(cls(config, body).state_dict(), folder)
            with uninitialised():
                model = cls(config, body)
            model.run_backbone_in(dtype)
            load_weights(model, folder)
        model.config = stored  # with what a new model would start from, too: it is saved as it was read
        model.provenance = provenance
        return model.eval()

    def save_pretrained(self, folder: str | Path, provenance: Provenance, *, half: bool = False) -> None:
        """Write config.json and model.safetensors (fp16 if half), each aside and then renamed."""
        save_weights(self, Path(folder), to_plain(self.config), provenance, half=half)


SHIPPED_WEIGHTS = ("embedded",)


def start_upright(regressor: Regressor) -> None:
    """Let the untrained answer be a person upright before the camera, 1.9 m across the crop.

    A random start asks the 2D losses to turn everybody around first, and bodies behind the camera cannot.
    """
    upright = torch.tensor(
        [1.0, 0.0, 0.0, -1.0, 0.0, 0.0]
    )  # half a turn about x, its first two columns by rows
    for cascade, lifted, bias in (
        (regressor.root_head, "root", upright),
        (regressor.camera_head, "camera", torch.tensor([0.0, 0.0, 1.15])),
    ):
        start = [] if regressor.lifter is None else [regressor.lifter.get_submodule(lifted)]
        for i, layer in enumerate([*start, *cascade.layers]):
            assert isinstance(layer, nn.Linear)
            with torch.no_grad():
                layer.weight.mul_(0.1)
                layer.bias.copy_(bias if i == 0 else torch.zeros_like(bias))
