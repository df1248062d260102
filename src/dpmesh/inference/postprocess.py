"""From the model's answer in a crop to a body in the camera frame of the full picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError, WeightsError
from dpmesh.geometry.camera import crop_focal, crop_rotation, solve_translation
from dpmesh.geometry.crop import Crop
from dpmesh.geometry.rotations import axis_angle, rotation_matrix
from dpmesh.types import Prediction

_DEPTH_RATIO = 2.0
"""A solved distance more than so many times the model's own, or so many times less, is not believed."""


@dataclass(frozen=True, eq=False)
class Placed:
    """One body in the camera frame; fields as `Person`'s. `solved` is False where the fallback was taken."""

    global_orient: Float[np.ndarray, "3"]
    body_pose: Float[np.ndarray, "69"]
    betas: Float[np.ndarray, "10"]
    transl: Float[np.ndarray, "3"]
    vertices: Float[np.ndarray, "v 3"]
    joints3d: Float[np.ndarray, "30 3"]
    joint_sigma: Float[np.ndarray, "30"]
    solved: bool


@torch.inference_mode()
def place(
    body: BodyModel,
    prediction: Prediction,
    crops: Sequence[Crop],
    cameras: Sequence[Float[np.ndarray, "3 3"]],
    camera: Literal["crop", "image"] = "crop",
) -> list[Placed]:
    """Turn each answer by its crop's rotation, and move it so that its joints fall where the crop has them.

    The body is posed again from the axis-angle parameters that are stored, so the stored vertices are exactly
    what `BodyModel` gives for them. Without a usable solution (`solve_translation`) the crop camera's own
    translation, turned about the pelvis, is kept.

    camera: DPMeshConfig.camera. Of a model of the full picture's camera the orientation needs no turn, and the
    distance is brought to the crop camera's focal length.

    Raises WeightsError for an answer that is not finite, InputError for a K that is no camera's.
    """
    refuse_unfinite(prediction)
    device = prediction.betas.device
    turns = np.stack([crop_rotation(K, crop) for K, crop in zip(cameras, crops, strict=True)])
    turn = torch.from_numpy(turns.astype(np.float32)).to(device)  # MPS has no float64
    root = prediction.global_orient if camera == "image" else turn @ prediction.global_orient
    focal = torch.tensor([crop_focal(K, crop) for K, crop in zip(cameras, crops, strict=True)], device=device)
    transl = prediction.transl.clone()
    transl[:, 2] *= focal / prediction.focal
    rotations = torch.cat([root[:, None], prediction.body_rotations], dim=1)
    vectors = axis_angle(rotations.float())  # (b, 24, 3)
    posed = body(prediction.betas, rotation_matrix(vectors))  # at the origin of the rest pose

    # Linear blend skinning turns about the pelvis joint J, so R (J + t) = J + t' gives the turned t'.
    pelvis = posed.joints[:, 0]
    kept = (turn @ (pelvis + transl)[..., None])[..., 0] - pelvis

    # Neither a turn nor a move changes how far joints may be off their pelvis, in whatever direction.
    sigma = prediction.joint_sigma
    sigma = torch.full((len(crops), 30), torch.nan) if sigma is None else sigma
    placed: list[Placed] = []
    for i, (crop, K) in enumerate(zip(crops, cameras, strict=True)):
        pixels = crop.to_image(_numpy(prediction.joints2d[i]).astype(np.float64))
        t = _solve(_numpy(posed.joints30[i]), pixels, K, _numpy(kept[i]), float(pelvis[i, 2]))
        transl = _numpy(kept[i]) if t is None else t
        vertices = posed.vertices[i : i + 1] + torch.from_numpy(transl).to(device)
        if not torch.isfinite(vertices).all():
            raise WeightsError(
                "the model's answer is too large to be a body", fix="Take other weights (--weights)."
            )
        placed.append(
            Placed(
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
    return placed


def refuse_unfinite(answer: Prediction) -> None:
    """Raise WeightsError for a model's answer that holds NaN or infinity: of finite inputs only weights make one."""
    names = ("betas", "global_orient", "body_rotations", "transl", "joints2d")
    if not all(bool(torch.isfinite(getattr(answer, name)).all()) for name in names):
        raise WeightsError(
            "the model's answer holds NaN or infinity",
            fix="Its weights are damaged, or were never trained: take others (--weights).",
        )


def _solve(
    joints: NDArray[np.float32],
    pixels: NDArray[np.float64],
    K: Float[np.ndarray, "3 3"],
    kept: NDArray[np.float32],
    pelvis_z: float,
) -> NDArray[np.float32] | None:
    """The translation that fits the pixels, or None where they fix none that can be believed."""
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
