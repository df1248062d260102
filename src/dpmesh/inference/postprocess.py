"""From predictions in crops to bodies in the camera frame of the full image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError, WeightsError
from dpmesh.geometry.camera import crop_focal, crop_rotation, rotation_by_roll, solve_translation
from dpmesh.geometry.crop import Crop
from dpmesh.geometry.rotations import axis_angle, rotation_matrix
from dpmesh.types import Prediction

_DEPTH_RATIO = 2.0
"""Greatest factor between the solved distance and the model's own, either way; beyond it the solution is rejected."""


@dataclass(frozen=True, eq=False)
class CameraBody:
    """One body in the camera frame; fields as `Person`'s. `solved`: False where the translation is the fallback."""

    global_orient: Float[np.ndarray, "3"]
    body_pose: Float[np.ndarray, "69"]
    betas: Float[np.ndarray, "10"]
    transl: Float[np.ndarray, "3"]
    vertices: Float[np.ndarray, "v 3"]
    joints3d: Float[np.ndarray, "30 3"]
    joint_sigma: Float[np.ndarray, "30"]
    solved: bool


@torch.inference_mode()
def postprocess(
    body: BodyModel,
    prediction: Prediction,
    crops: Sequence[Crop],
    cameras: Sequence[Float[np.ndarray, "3 3"]],
    camera: Literal["crop", "image"] = "crop",
) -> list[CameraBody]:
    """Rotate each body from its crop's camera into the image's, and translate it so that its joints project to the
    same pixels.

    The body is posed from the axis-angle parameters that are stored, so the stored vertices equal `BodyModel`'s for
    them exactly. The translation is solved by least squares (`solve_translation`); without a usable solution the crop
    camera's own translation, rotated about the pelvis, is kept.

    cameras: K of each full image. camera: DPMeshConfig.camera; with "image" the orientation is already in the camera of
    the image, turned as the crop is, and the distance is scaled to the crop camera's focal length.

    Raises WeightsError for a prediction that is not finite, InputError for a K that is not a camera's.
    """
    check_finite(prediction)
    device = prediction.betas.device
    turns = np.stack([crop_rotation(K, crop) for K, crop in zip(cameras, crops, strict=True)])
    turn = torch.from_numpy(turns.astype(np.float32)).to(device)  # MPS has no float64
    root = prediction.global_orient
    if camera == "crop":
        root = turn @ root
    elif any(crop.roll for crop in crops):
        rolls = np.stack([rotation_by_roll(one) for one in turns])
        root = torch.from_numpy(rolls.astype(np.float32)).to(device) @ root
    focal = torch.tensor([crop_focal(K, crop) for K, crop in zip(cameras, crops, strict=True)], device=device)
    transl = prediction.transl.clone()
    transl[:, 2] *= focal / prediction.focal
    rotations = torch.cat([root[:, None], prediction.body_rotations], dim=1)
    vectors = axis_angle(rotations.float())  # (b, 24, 3)
    posed = body(prediction.betas, rotation_matrix(vectors))  # at the origin of the rest pose

    # Linear blend skinning turns about the pelvis joint J, so R (J + t) = J + t' gives the rotated t'.
    pelvis = posed.joints[:, 0]
    kept = (turn @ (pelvis + transl)[..., None])[..., 0] - pelvis

    # Rotation and translation leave the distance of a joint from its pelvis as it is.
    sigma = prediction.joint_sigma
    sigma = torch.full((len(crops), 30), torch.nan) if sigma is None else sigma
    bodies: list[CameraBody] = []
    for i, (crop, K) in enumerate(zip(crops, cameras, strict=True)):
        pixels = crop.to_image(_numpy(prediction.joints2d[i]).astype(np.float64))
        t = _solve(_numpy(posed.joints30[i]), pixels, K, _numpy(kept[i]), float(pelvis[i, 2]))
        transl = _numpy(kept[i]) if t is None else t
        vertices = posed.vertices[i : i + 1] + torch.from_numpy(transl).to(device)
        if not torch.isfinite(vertices).all():
            raise WeightsError(
                "the prediction is too large to be a body", fix="Use other weights (--weights)."
            )
        bodies.append(
            CameraBody(
                global_orient=_numpy(vectors[i, 0]),
                body_pose=_numpy(vectors[i, 1:].reshape(-1)),
                betas=_numpy(prediction.betas[i]),
                transl=transl,
                vertices=_numpy(vertices[0]),
                joints3d=_numpy(body.regress(vertices, "joints30")[0]),
                joint_sigma=_numpy(sigma[i]),
                solved=t is not None,
            )
        )
    return bodies


def check_finite(prediction: Prediction) -> None:
    """Raise WeightsError for a prediction with NaN or infinity: with finite inputs only the weights can cause it."""
    names = ("betas", "global_orient", "body_rotations", "transl", "joints2d")
    if not all(bool(torch.isfinite(getattr(prediction, name)).all()) for name in names):
        raise WeightsError(
            "the prediction contains NaN or infinity",
            fix="The weights are damaged, or were never trained: use others (--weights).",
        )


def _solve(
    joints: NDArray[np.float32],
    pixels: NDArray[np.float64],
    K: Float[np.ndarray, "3 3"],
    kept: NDArray[np.float32],
    pelvis_z: float,
) -> NDArray[np.float32] | None:
    """The translation that fits the pixels, or None where they determine no plausible one."""
    if not np.isfinite(pixels).all():
        return None
    try:
        t = solve_translation(joints, pixels, K, np.ones(len(joints)))
    except InputError:
        return None
    near, far = (kept[2] + pelvis_z) / _DEPTH_RATIO, (kept[2] + pelvis_z) * _DEPTH_RATIO
    return t.astype(np.float32) if near <= t[2] + pelvis_z <= far else None


def _numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().cpu().numpy()
