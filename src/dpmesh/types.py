"""The model's input and output types."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from dpmesh.backbone.features import Features
from dpmesh.body.layer import BodyModel
from dpmesh.geometry.crop_camera import project
from dpmesh.geometry.rotations import rotation_to_6d


@dataclass(frozen=True)
class Inputs:
    """A batch of crops with their keypoints."""

    crop: Float[Tensor, "b 3 256 256"]
    """RGB in [0, 1]."""
    joints: Float[Tensor, "b 30 2"]
    """2D keypoints of the 30-joint set (skeletons.JOINTS30), crop pixels."""
    visible: Float[Tensor, "b 30"]
    """1 where the keypoint is known. Where it is 0 the coordinate is ignored, unless config.prompt.visible_only is
    False."""
    focal: Float[Tensor, " b"]
    """Focal length of the crop camera in crop pixels; with config.camera "image" the diagonal of the full image in its
    pixels."""
    confidence: Float[Tensor, "b 30"] | None = None
    """Of the visible keypoints, in [0, 1]: weights them when a body is refined; the model does not read it. None where
    it is not known."""


@dataclass(frozen=True)
class Prediction:
    """A batch of predicted bodies. Metres are in the frame of the crop camera (x right, y down, z forward); with
    config.camera "image" the root orientation is in the camera frame of the full image."""

    root_6d: Float[Tensor, "b 6"]
    """Root orientation as regressed (geometry/rotations.py)."""
    pose_latent: Float[Tensor, "b *o"]
    """The pose prior's input: for each pose token logits over the codebook or a point in code space
    (config.token_mode), VPoser's latent, or six numbers for each joint."""
    body_rotations: Float[Tensor, "b 23 3 3"]
    """Rotations of SMPL's joints 1 to 23 relative to their parents."""
    betas: Float[Tensor, "b 10"]
    """Shape coefficients, standard deviations."""
    camera: Float[Tensor, "b 3"]
    """Camera as regressed (geometry/crop_camera.camera_translation)."""
    joints_img: Float[Tensor, "b 15 3"]
    """The decoder's 15 joints (skeletons.GRAPH15): x and y as fractions of the crop, z = (metres behind the pelvis
    + 1) / 2."""
    global_orient: Float[Tensor, "b 3 3"]
    """Root rotation matrix."""
    transl: Float[Tensor, "b 3"]
    """Translation of the body, metres."""
    vertices: Float[Tensor, "b v 3"]
    """Metres."""
    joints3d: Float[Tensor, "b 30 3"]
    """The 30-joint set, metres."""
    joints2d: Float[Tensor, "b 30 2"]
    """joints3d projected, crop pixels."""
    focal: Float[Tensor, " b"]
    """Focal length that camera and joints2d were computed with, as in Inputs."""
    joint_sigma: Float[Tensor, "b 30"] | None = None
    """Predicted standard deviation of each pelvis-relative joint along each axis, metres; 0 for the pelvis
    (regressor/uncertainty.py). It does not cover the distance from the camera. None for a model without
    config.regressor.uncertainty."""
    features: Features | None = None
    """The backbone's features, on request."""

    @classmethod
    def from_body(
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
        """A prediction from body parameters; rotations with the root first, the rest as the fields.

        The regressed quantities are optional: root_6d defaults to that of the root rotation, camera and joints_img to
        zeros, pose_latent to an empty one.
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
    """Body parameters of a batch; frames as in Prediction."""

    rotations: Float[Tensor, "b 24 3 3"]
    """Rotation matrices relative to the parent joint, the root first."""
    betas: Float[Tensor, "b 10"]
    """Shape coefficients, standard deviations."""
    transl: Float[Tensor, "b *t"]
    """Translation (b, 3), metres; empty where only the pose matters."""
    pose_latent: Float[Tensor, "..."]
    """As in Prediction; empty where it is not used."""
