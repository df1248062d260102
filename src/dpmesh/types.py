"""What goes into the model and what comes out."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from dpmesh.backbone.features import Features
from dpmesh.body.layer import BodyModel
from dpmesh.geometry.crop_camera import project
from dpmesh.geometry.rotations import rotation_to_6d


@dataclass(frozen=True)
class Inputs:
    """crop: RGB in [0, 1]. joints: the 30-joint set, crop pixels. visible: 1 where a joint is given, 0 where it
    is not (its coordinate is then ignored, unless config.prompt.visible_only is False). focal: pixels of the crop
    camera, or the full picture's diagonal (config.camera)."""

    crop: Float[Tensor, "b 3 256 256"]
    joints: Float[Tensor, "b 30 2"]
    visible: Float[Tensor, "b 30"]
    focal: Float[Tensor, " b"]


@dataclass(frozen=True)
class Prediction:
    """Metres are in the frame of the crop's camera (config.camera): x right, y down, z forward.

    root_6d and camera are as regressed; global_orient (matrix) and transl (metres) are what they mean.
    pose_latent: what the pose prior decodes; for each pose token logits over the codebook, or a point in code space
    (config.token_mode), or VPoser's code.
    joints_img: the decoder's 15 joints, x and y as fractions of the crop, z = (metres behind the pelvis + 1) / 2.
    joints2d: crop pixels. focal: the focal length that camera and joints2d were computed with.
    joint_sigma: metres, how far joints3d less its first joint, the pelvis, may be off: the standard deviation along
    each axis (regressor/uncertainty.py). 0 for the pelvis itself. Of its distance from the camera it says nothing.
    None of a model without config.regressor.uncertainty.
    """

    root_6d: Float[Tensor, "b 6"]
    pose_latent: Float[Tensor, "b *o"]
    body_rotations: Float[Tensor, "b 23 3 3"]
    betas: Float[Tensor, "b 10"]
    camera: Float[Tensor, "b 3"]
    joints_img: Float[Tensor, "b 15 3"]
    global_orient: Float[Tensor, "b 3 3"]
    transl: Float[Tensor, "b 3"]
    vertices: Float[Tensor, "b v 3"]
    joints3d: Float[Tensor, "b 30 3"]
    joints2d: Float[Tensor, "b 30 2"]
    focal: Float[Tensor, " b"]
    joint_sigma: Float[Tensor, "b 30"] | None = None
    features: Features | None = None

    @classmethod
    def of_body(
        cls,
        body: BodyModel,
        rotations: Float[Tensor, "b 24 3 3"],
        betas: Float[Tensor, "b 10"],
        transl: Float[Tensor, "b 3"],
        focal: Float[Tensor, " b"],
        *,
        root_6d: Float[Tensor, "b 6"] | None = None,
        pose_latent: Float[Tensor, "b *o"] | None = None,
        camera: Float[Tensor, "b 3"] | None = None,
        joints_img: Float[Tensor, "b 15 3"] | None = None,
        features: Features | None = None,
    ) -> "Prediction":
        """From a body's parameters (rotations with the root first) all that follows from them: the one place where
        it does. What only a network has and is not given is zeros, pose_latent empty; root_6d is that of the root.
        """
        posed, b = body(betas, rotations, transl), len(focal)
        return cls(
            root_6d=rotation_to_6d(rotations[:, 0]) if root_6d is None else root_6d,
            pose_latent=betas.new_zeros(b, 0) if pose_latent is None else pose_latent,
            body_rotations=rotations[:, 1:],
            betas=betas,
            camera=betas.new_zeros(b, 3) if camera is None else camera,
            joints_img=betas.new_zeros(b, 15, 3) if joints_img is None else joints_img,
            global_orient=rotations[:, 0],
            transl=transl,
            vertices=posed.vertices,
            joints3d=posed.joints30,
            joints2d=project(posed.joints30, focal),
            focal=focal,
            features=features,
        )


@dataclass(frozen=True)
class BodyParameters:
    """The regressor's answer as parameters of the body: rotations (b, 24, 3, 3) with the root first; the rest as
    in Prediction."""

    rotations: Tensor
    betas: Tensor
    transl: Tensor
    pose_latent: Tensor
