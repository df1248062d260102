"""The model: a crop of a person and noisy 2D keypoints in, a body out. `DPMesh.forward` is the paper's Figure 3."""

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
from dpmesh.config_io import to_dict
from dpmesh.device import TYPES, cast_module, full_precision
from dpmesh.diffusion.lora import cross_attention, inject_lora, released_targets
from dpmesh.diffusion.unet import EncoderHalf
from dpmesh.diffusion.vae import VAEEncoder
from dpmesh.errors import ConfigError, WeightsError
from dpmesh.geometry import CROP
from dpmesh.geometry.crop_camera import camera_translation
from dpmesh.geometry.rotations import rotation_from_6d
from dpmesh.pose_prior.prior import build_prior
from dpmesh.regressor.cascade import Regression, Regressor
from dpmesh.regressor.tokens import build_pose_head
from dpmesh.types import BodyParameters, Inputs, Prediction

SHIPPED_WEIGHTS = ("embedded",)
"""Names of the weights that the package ships."""


class DPMesh(nn.Module):
    """DPMesh in every configuration (config.py). Losses and training stages live in train/."""

    def __init__(self, config: DPMeshConfig, body: BodyArrays | None = None) -> None:
        """A model with random weights. body: arrays of a licensed body model; None takes the shipped free body."""
        super().__init__()
        self.config = config
        self.provenance: Provenance = {}
        if isinstance(config.backbone, BackboneConfig):
            self.prompt = (JointPrompt if config.backbone.prompted else ConstantPrompt)(config.prompt)
            self.backbone = DiffusionBackbone(config.backbone)
        else:  # timm's models have no cross-attention
            self.prompt = None
            self.backbone = TimmBackbone(config.backbone)
        for part in config.frozen:
            self.backbone.get_submodule(part).requires_grad_(False)
        if config.lora_rank and isinstance(self.backbone, DiffusionBackbone):
            self.backbone.unet.requires_grad_(False)
            targets = cross_attention if config.lora_targets == "cross" else released_targets
            inject_lora(self.backbone.unet, config.lora_rank, targets)
        self.regressor = Regressor(config.regressor)
        self.pose_prior = build_prior(config.pose_prior, config.token_mode)
        self.pose_tokens = build_pose_head(
            config.regressor.pose_code, self.pose_prior.latent_shape, config.token_width
        )
        self.body = BodyModel(free_body() if body is None else body)
        self.regressor.start_upright()
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # narrow convolutions run up to three times faster on a CPU
                layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        """Predict one body for each crop (Figure 3; shapes of the configuration `paper`).

        features: also return the backbone's features, in Prediction.features.
        """
        joints, visible = inputs.joints, inputs.visible  # (b, 30, 2) crop pixels, (b, 30)
        # 1. Encode the crop with the VAE.
        latent = self.backbone.encode(inputs.crop)  # (b, 4, 32, 32)
        # 2. Draw the keypoints as heatmaps, the ControlNet's input (Eq. 4).
        hint = self.backbone.draw_heatmaps(joints, visible)  # (b, 30, 32, 32)
        # 3. Embed the joint coordinates as the prompt (Eq. 6).
        prompt = self.prompt and self.prompt(joints, visible)  # (b, 30, 768)
        # 4. Run one controlled U-Net step (Eq. 5); fuse its features and attention maps.
        image_features = self.backbone(latent, hint, prompt)  # fused: (b, 2048, 8, 8)
        # 5. Regress root orientation, pose code, shape and camera with the cascade decoder.
        regression = self.regress(image_features, joints, visible)  # (b, 6), (b, 256), (b, 10), (b, 3)
        # 6. Decode the pose and compute the body.
        return self.decode_body(
            regression, inputs.focal, image_features if features else None
        )  # (b, 6890, 3)

    def encode_image(
        self,
        crop: Float[Tensor, "b 3 256 256"],
        joints: Float[Tensor, "b j 2"],
        visible: Float[Tensor, "b j"],
        latent: Float[Tensor, "b z 32 32"] | None = None,
    ) -> Features:
        """Steps 1 to 4 of `forward`. crop, joints, visible: as in Inputs. latent: skips step 1."""
        latent = self.backbone.encode(crop) if latent is None else latent
        prompt = self.prompt and self.prompt(joints, visible)
        return self.backbone(latent, self.backbone.draw_heatmaps(joints, visible), prompt)

    def regress(
        self,
        image_features: Features | None,
        joints: Float[Tensor, "b j 2"],
        visible: Float[Tensor, "b j"],
        readings: Float[Tensor, "b j 4"] | None = None,
    ) -> Regression:
        """Step 5 of `forward`. joints, visible: as in Inputs.

        image_features: None regresses from the keypoints alone, with the lifter. readings: replace the joints read off
        an image (JointReadings.summary) where image_features has none.
        Raises ConfigError without image features for a model without a lifter.
        """
        if image_features is not None and image_features.readings is not None:
            readings = image_features.readings.summary()
        memory = None if image_features is None else self.regressor.build_memory(image_features.fused)
        return self.regressor(memory, torch.cat([joints / CROP, visible[..., None]], -1), readings)

    def decode_parameters(self, regression: Regression, focal: Float[Tensor, " b"]) -> BodyParameters:
        """Body parameters of a regression: root by Gram-Schmidt, pose through the prior, camera as a translation.

        focal: as in Inputs. Always computed in fp32.
        """
        latent = self.pose_tokens(regression.pose_code).float()
        with full_precision(focal.device):
            pose = self.pose_prior.decode_latent(latent)
            root = rotation_from_6d(regression.root_6d.float())
            transl = camera_translation(regression.camera.float(), focal, self.config.depth_scale)
            rotations = torch.cat([root[:, None], pose], 1)
            return BodyParameters(rotations, regression.betas.float(), transl, latent)

    def decode_body(
        self, regression: Regression, focal: Float[Tensor, " b"], features: Features | None = None
    ) -> Prediction:
        """Step 6 of `forward`. focal: as in Inputs. features: only passed on to the prediction."""
        focal = focal[:1].expand_as(focal) if self.config.shared_focal else focal
        parameters = self.decode_parameters(regression, focal)
        prediction = Prediction.from_body(
            self.body,
            parameters.rotations,
            regression.betas,
            parameters.transl,
            focal,
            root_6d=regression.root_6d,
            pose_latent=parameters.pose_latent,
            camera=regression.camera,
            joints_img=regression.joints_img,
            features=features,
        )
        sigma = self.predict_sigma(regression, prediction.joints3d, prediction.joints2d)
        return replace(prediction, joint_sigma=sigma)

    def predict_sigma(
        self, regression: Regression, joints3d: Float[Tensor, "b 30 3"], joints2d: Float[Tensor, "b 30 2"]
    ) -> Float[Tensor, "b 30"] | None:
        """Prediction.joint_sigma (metres) of a regression and the joints of its body (metres; crop pixels); None
        without an uncertainty head."""
        head = self.regressor.uncertainty
        log_scale = self.regressor.predict_log_scale(regression, joints3d, joints2d)
        return None if head is None or log_scale is None else head.sigma(log_scale)

    @property
    def camera(self) -> Literal["crop", "image"]:
        """The camera whose focal length `Inputs` must have (DPMeshConfig.camera)."""
        return self.config.camera

    @property
    def predicts_sigma(self) -> bool:
        """Whether `Prediction` has a joint_sigma."""
        return self.regressor.uncertainty is not None

    def set_backbone_dtype(self, dtype: torch.dtype) -> None:
        """Run VAE encoder, ControlNet and U-Net, weights and activations, in fp32, bf16 or fp16.

        Fusion, regressor and body stay in fp32. Raises ConfigError for another type.
        """
        if dtype not in TYPES:
            raise ConfigError(f"{dtype} is none of {', '.join(map(str, TYPES))}", where="dtype")
        for part in list(self.backbone.modules()):
            if isinstance(part, VAEEncoder | EncoderHalf):
                cast_module(part, dtype)

    @classmethod
    def from_config(
        cls, config: str | Mapping[str, Any] | DPMeshConfig, body: BodyArrays | None = None
    ) -> "DPMesh":
        """A model with random weights.

        config: a DPMeshConfig, a name ("embedded") or a table that overrides one (`configuration`). body: as __init__.
        Raises ConfigError.
        """
        return cls(config if isinstance(config, DPMeshConfig) else configuration(config), body)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, body: BodyArrays | None = None, *, dtype: torch.dtype = torch.float32
    ) -> "DPMesh":
        """A model with stored weights, in evaluation mode.

        source: a folder with config.json and model.safetensors, or the name of shipped weights ("embedded").
        body: as __init__. dtype: as set_backbone_dtype; weights are loaded directly in this type.
        Raises WeightsError where the folder does not hold exactly this model.
        """
        folder = Path(source)
        if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
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
            if (
                config not in PRESETS.values()
            ):  # unknown sizes: compare with the stored shapes without memory first
                with torch.device("meta"):
                    check_stored(cls(config, body).state_dict(), folder)
            with uninitialised():
                model = cls(config, body)
            model.set_backbone_dtype(dtype)
            load_weights(model, folder)
        model.config = stored  # as read: save_pretrained writes the same config again
        model.provenance = provenance
        return model.eval()

    def save_pretrained(self, folder: str | Path, provenance: Provenance, *, half: bool = False) -> None:
        """Write config.json and model.safetensors, atomically. half: store fp16. Raises OutputError."""
        save_weights(self, Path(folder), to_dict(self.config), provenance, half=half)
