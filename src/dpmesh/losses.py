"""The supervised terms of the paper's Eq. 9-11: L1 on 2D joints, 3D joints, pose, shape and the decoder's joints."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from dpmesh.geometry import CROP
from dpmesh.geometry.heatmap import draw_heatmaps
from dpmesh.skeletons import GRAPH15, JOINTS30

_GRAPH = GRAPH15.indices_in(JOINTS30)


@dataclass(frozen=True)
class Answer:
    """What is compared. Rotations are matrices, the root first; joints3d metres, camera frame; joints2d crop pixels."""

    rotations: Float[Tensor, "b 24 3 3"]
    betas: Float[Tensor, "b 10"]
    joints3d: Float[Tensor, "b 30 3"]
    joints2d: Float[Tensor, "b 30 2"]

    def of(self, rows: Bool[Tensor, " b"]) -> "Answer":
        """Some of the people."""
        return Answer(self.rotations[rows], self.betas[rows], self.joints3d[rows], self.joints2d[rows])


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """One factor for each term; the terms are means over all numbers, in the units named in `loss_terms`."""

    joints3d: float = 10.0
    joints2d: float = 5.0
    root: float = 1.0
    pose: float = 2.0
    pose_latent: float = 0.5
    betas: float = 0.05
    joints_img: float = 2.0
    read_cells: float = 0.2
    read_places: float = 10.0
    read_depths: float = 3.0
    surface_parts: float = 0.5
    surface_depths: float = 3.0

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum."""
        return torch.stack([getattr(self, name) * value for name, value in terms.items()]).sum()


def loss_terms(answer: Answer, joints_img: Float[Tensor, "b 15 3"], truth: Answer) -> dict[str, Tensor]:
    """Unweighted terms.

    joints3d: metres, relative to the pelvis (Eq. 10). joints2d: fractions of the crop (Eq. 9); joints far outside
    are compared as if they lay half a crop beyond its border. root, pose: entries of rotation matrices, betas:
    standard deviations (Eq. 11). joints_img: the decoder's 15 joints, only those inside the crop.
    """
    relative, true_relative = (a.joints3d - a.joints3d[:, :1] for a in (answer, truth))
    placed, true_placed = ((a.joints2d / CROP).clamp(-0.5, 1.5) for a in (answer, truth))
    target_img = image_space(truth.joints3d, truth.joints2d)
    inside = ((target_img >= 0) & (target_img <= 1)).all(-1, keepdim=True).to(joints_img.dtype)
    return {
        "joints3d": (relative - true_relative).abs().mean(),
        "joints2d": (placed - true_placed).abs().mean(),
        "root": (answer.rotations[:, 0] - truth.rotations[:, 0]).abs().mean(),
        "pose": (answer.rotations[:, 1:22] - truth.rotations[:, 1:22]).abs().mean(),
        "betas": (answer.betas - truth.betas).abs().mean(),
        "joints_img": ((joints_img - target_img).abs() * inside).mean(),
    }


def image_space(
    joints3d: Float[Tensor, "b 30 3"], joints2d: Float[Tensor, "b 30 2"]
) -> Float[Tensor, "b 15 3"]:
    """The 15 decoder joints: x, y as fractions of the crop, z = (metres behind the pelvis + 1) / 2."""
    depth = (joints3d[:, _GRAPH, 2] - joints3d[:, :1, 2] + 1) / 2
    return torch.cat([joints2d[:, _GRAPH] / CROP, depth[..., None]], dim=-1)


def reading_terms(
    scores: Float[Tensor, "b 30 s s"], places: Float[Tensor, "b 30 3"], truth: Answer
) -> dict[str, Tensor]:
    """How well the joints are read off the finest map (backbone/reading.py); not in the paper.

    read_cells: cross-entropy with a Gaussian of one cell about the true place, nats; read_places: fractions of the
    crop; both only for joints inside it. read_depths: metres.
    """
    inside = ((truth.joints2d >= 0) & (truth.joints2d < CROP)).all(-1)
    count = inside.sum().clamp(min=1)
    target = draw_heatmaps(truth.joints2d, inside.to(scores.dtype), size=scores.shape[-1], sigma=1.0).flatten(
        2
    )
    target = target / target.sum(-1, keepdim=True).clamp(min=1e-6)
    off = (places[..., :2] - truth.joints2d).abs().mean(-1) / CROP
    depth = truth.joints3d[..., 2] - truth.joints3d[:, :1, 2]
    return {
        "read_cells": -(target * scores.flatten(2).log_softmax(-1)).sum() / count,
        "read_places": (off * inside).sum() / count,
        "read_depths": (places[..., 2] - depth).abs().mean(),
    }


def surface_terms(
    surface: Float[Tensor, "b k s s"],
    parts: Int[Tensor, "b s s"],
    depth: Float[Tensor, "b s s"],
    own: Bool[Tensor, " b"],
) -> dict[str, Tensor]:
    """How well the person's surface is told (JointsRead.surface); not in the paper.

    parts: the true class of each cell, 0 for no person. depth: true metres behind the pelvis. own: whose picture
    is their own; the others do not count. surface_parts: cross-entropy, nats; surface_depths: metres, over the
    person's cells.
    """
    counts = own[:, None, None].to(surface.dtype).expand_as(depth)
    person = counts * (parts > 0)
    wrong = F.cross_entropy(surface[:, :-1], parts, reduction="none")
    off = (surface[:, -1] - depth).abs()
    return {
        "surface_parts": (wrong * counts).sum() / counts.sum().clamp(min=1),
        "surface_depths": (off * person).sum() / person.sum().clamp(min=1),
    }
