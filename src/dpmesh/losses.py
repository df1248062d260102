"""The supervised losses (Eq. 9-11: L1 on 2D joints, 3D joints, pose, shape and the decoder's joints), and ours."""

import math
from dataclasses import dataclass, fields

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from dpmesh.geometry import CROP
from dpmesh.geometry.crop_camera import draw_heatmaps
from dpmesh.regressor.uncertainty import LEAST, TAILS
from dpmesh.skeletons import GRAPH15, JOINTS30

_GRAPH = GRAPH15.indices_in(JOINTS30)


@dataclass(frozen=True)
class SupervisedBody:
    """The quantities of a body that the losses compare, predicted or true."""

    rotations: Float[Tensor, "b 24 3 3"]
    """Rotation matrices relative to the parent joint, the root first."""
    betas: Float[Tensor, "b 10"]
    """Shape coefficients, standard deviations."""
    joints3d: Float[Tensor, "b 30 3"]
    """Metres, camera frame (x right, y down, z forward)."""
    joints2d: Float[Tensor, "b 30 2"]
    """Crop pixels."""


@dataclass(frozen=True)
class KnownTargets:
    """Masks of the known targets, 1 or 0 (the *_valid fields of data/sample.py), and the targets of fitted meshes."""

    joints2d: Float[Tensor, "b 30"]
    """Known 2D joints."""
    joints3d: Float[Tensor, "b 30"]
    """Known 3D joints."""
    pose: Float[Tensor, "b 24"]
    """Known rotations."""
    betas: Float[Tensor, " b"]
    """Whether the shape is known."""
    fit2d: Float[Tensor, "b 30 2"]
    """2D joints of the mesh fitted to the person, crop pixels."""
    fit3d: Float[Tensor, "b 30 3"]
    """3D joints of the fitted mesh, metres, camera frame."""
    fit: Float[Tensor, " b"]
    """Whether there is a fitted mesh."""

    @classmethod
    def complete(cls, truth: SupervisedBody) -> "KnownTargets":
        """Every target is known, and the fitted mesh is the true one."""
        one = truth.betas.new_ones(len(truth.betas))
        joints = one[:, None].expand(-1, 30)
        return cls(joints, joints, one[:, None].expand(-1, 24), one, truth.joints2d, truth.joints3d, one)


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """A factor for each loss term. A term is a mean over all numbers, in the unit named here; see `loss_terms`."""

    joints3d: float = 10.0
    """3D joints relative to the pelvis, metres (Eq. 10)."""
    joints2d: float = 5.0
    """2D joints, fractions of the crop (Eq. 9)."""
    root: float = 1.0
    """Entries of the root's rotation matrix (Eq. 11)."""
    pose: float = 2.0
    """Entries of the rotation matrices of joints 1 to 21 (Eq. 11)."""
    pose_latent: float = 0.5
    """Squared distance of the pose latent to the true pose's, in code space (token_mode "points" and "nearest")."""
    betas: float = 0.05
    """Shape coefficients, standard deviations (Eq. 11)."""
    joints_img: float = 2.0
    """The decoder's joints, fractions of the crop and half metres of depth."""
    fit_img: float = 0.0
    """As joints_img, against fitted meshes. 0: not computed."""
    fit3d: float = 0.0
    """As joints3d, against fitted meshes. 0: not computed."""
    nkr_contrast: float = 0.1
    """Contrastive term of the noisy key-point reasoning (Eq. 7-8; train/objectives/distillation.py)."""
    nkr_mse: float = 0.1
    """Squared feature distance of the noisy key-point reasoning (Eq. 7)."""
    read_cells: float = 0.2
    """Cross-entropy of the cells of the joint readings, nats."""
    read_places: float = 10.0
    """Positions of the joint readings, fractions of the crop."""
    read_depths: float = 3.0
    """Depths of the joint readings, metres."""
    surface_parts: float = 0.5
    """Cross-entropy of the surface's part of each cell, nats."""
    surface_depths: float = 3.0
    """Depth of the surface, metres."""
    uncertainty: float = 0.01
    """Negative log likelihood of the joint errors, nats. It only trains the uncertainty head, and Adam is insensitive
    to its size; a large factor would dominate the gradient norm that clipping uses."""
    only_inside: bool = False
    """Leave joints outside the crop out of joints2d, as the released code does; else they count up to half a crop
    beyond its border."""
    automatic: bool = False
    """Learn a further weight for each term (`balanced`)."""

    def total(self, terms: dict[str, Tensor], balance: Float[Tensor, " n"] | None = None) -> Tensor:
        """Weighted sum of the terms. balance: the learned number of each of TERMS (`balanced`)."""
        weighted = {name: getattr(self, name) * value for name, value in terms.items()}
        if balance is not None:
            weighted = {name: balanced(value, balance[TERMS.index(name)]) for name, value in weighted.items()}
        return torch.stack(list(weighted.values())).sum()


TERMS = tuple(f.name for f in fields(LossWeights) if f.type in (float, "float"))
"""Names of all terms."""


def balanced(loss: Float[Tensor, ""], p: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Automatic weighting of a term: L / (2 p²) + ln(1 + p²), with learned p, initially 1 (Liebel and Körner 2018)."""
    return loss / (2 * p.square()) + torch.log1p(p.square())


def loss_terms(
    predicted: SupervisedBody,
    joints_img: Float[Tensor, "b 15 3"],
    truth: SupervisedBody,
    known: KnownTargets | None = None,
    weights: LossWeights | None = None,
) -> dict[str, Tensor]:
    """Unweighted terms by name; units as in LossWeights. joints_img: as in Prediction. known: all without it.

    Unknown targets add nothing, but every mean is over all numbers, masked ones included, so that the parts of a batch
    average to the whole. In joints2d, joints far outside are clamped to half a crop beyond the border. joints_img
    counts joints inside the crop; where the depth is not measured, only x and y.
    """
    known, weights = known or KnownTargets.complete(truth), weights or LossWeights()
    position, target = predicted.joints2d / CROP, truth.joints2d / CROP
    counted = known.joints2d
    if weights.only_inside:
        counted = counted * ((target >= 0) & (target < 1)).all(-1)
    measured = known.joints3d * known.joints3d[:, :1]  # depths are relative to the pelvis
    off2d = (position.clamp(-0.5, 1.5) - target.clamp(-0.5, 1.5)).abs()
    terms = {
        "joints3d": (_pelvis_relative_error(predicted.joints3d, truth.joints3d) * measured[..., None]).mean(),
        "joints2d": (off2d * counted[..., None]).mean(),
        "root": _rotation_error(predicted, truth, known, 0, 1),
        "pose": _rotation_error(predicted, truth, known, 1, 22),
        "betas": ((predicted.betas - truth.betas).abs() * known.betas[:, None]).mean(),
        "joints_img": _image_space_error(
            joints_img, truth.joints3d, truth.joints2d, known.joints2d, measured
        ),
    }
    if weights.fit_img:
        fitted = known.fit[:, None].expand(-1, 30)
        terms["fit_img"] = _image_space_error(joints_img, known.fit3d, known.fit2d, fitted, fitted)
    if weights.fit3d:
        off = _pelvis_relative_error(predicted.joints3d, known.fit3d)
        terms["fit3d"] = (off * known.fit[:, None, None]).mean()
    return terms


def _pelvis_relative_error(a: Float[Tensor, "b 30 3"], b: Float[Tensor, "b 30 3"]) -> Float[Tensor, "b 30 3"]:
    return ((a - a[:, :1]) - (b - b[:, :1])).abs()


def _rotation_error(
    predicted: SupervisedBody, truth: SupervisedBody, known: KnownTargets, first: int, end: int
) -> Float[Tensor, ""]:
    """Mean L1 of the matrix entries of joints first to end - 1."""
    off = (predicted.rotations[:, first:end] - truth.rotations[:, first:end]).abs()
    return (off * known.pose[:, first:end, None, None]).mean()


def _image_space_error(
    joints_img: Float[Tensor, "b 15 3"],
    joints3d: Float[Tensor, "b 30 3"],
    joints2d: Float[Tensor, "b 30 2"],
    annotated: Float[Tensor, "b 30"],
    measured: Float[Tensor, "b 30"],
) -> Float[Tensor, ""]:
    """Mean L1 of the decoder's joints, of those inside the crop and, where measured, within a metre of the pelvis'
    depth. annotated: known 2D joints. measured: known depths."""
    target = image_space(joints3d, joints2d)
    within = (target >= 0) & (target <= 1)
    flat, deep = annotated[:, _GRAPH], annotated[:, _GRAPH] * measured[:, _GRAPH]
    inside = within[..., :2].all(-1) & (within[..., 2] | (deep == 0))
    mask = torch.stack([flat, flat, deep], -1) * inside[..., None]
    return ((joints_img - target).abs() * mask).mean()


def image_space(
    joints3d: Float[Tensor, "b 30 3"], joints2d: Float[Tensor, "b 30 2"]
) -> Float[Tensor, "b 15 3"]:
    """The 15 decoder joints: x, y as fractions of the crop, z = (metres behind the pelvis + 1) / 2."""
    depth = (joints3d[:, _GRAPH, 2] - joints3d[:, :1, 2] + 1) / 2
    return torch.cat([joints2d[:, _GRAPH] / CROP, depth[..., None]], dim=-1)


def reading_terms(
    scores: Float[Tensor, "b 30 s s"],
    positions: Float[Tensor, "b 30 3"],
    truth: SupervisedBody,
    known: KnownTargets | None = None,
) -> dict[str, Tensor]:
    """Losses of the joint readings (backbone/joint_reading.py). Not in the paper.

    scores, positions: as in JointReadings. known: all without it. Terms: read_cells, the cross-entropy with a Gaussian
    of one cell around the true position (nats), and read_places (fractions of the crop), both for joints inside the
    crop; read_depths (metres).
    """
    known = known or KnownTargets.complete(truth)
    inside = ((truth.joints2d >= 0) & (truth.joints2d < CROP)).all(-1) & (known.joints2d > 0)
    count = global_count(inside.sum())
    maps = draw_heatmaps(truth.joints2d, inside.to(scores.dtype), size=scores.shape[-1], sigma=1.0)
    target = maps.flatten(2)
    target = target / target.sum(-1, keepdim=True).clamp(min=1e-6)
    off = (positions[..., :2] - truth.joints2d).abs().mean(-1) / CROP
    depth = truth.joints3d[..., 2] - truth.joints3d[:, :1, 2]
    measured = known.joints3d * known.joints3d[:, :1]
    return {
        "read_cells": -(target * scores.flatten(2).log_softmax(-1)).sum() / count,
        "read_places": (off * inside).sum() / count,
        "read_depths": ((positions[..., 2] - depth).abs() * measured).mean(),
    }


def surface_terms(
    surface: Float[Tensor, "b k s s"],
    parts: Int[Tensor, "b s s"],
    depth: Float[Tensor, "b s s"],
    valid: Bool[Tensor, " b"],
) -> dict[str, Tensor]:
    """Losses of the surface (JointReadings.surface). Not in the paper.

    parts: true class of each cell, 0 for background. depth: true depth of each cell, metres behind the pelvis. valid:
    samples that count: the crop shows this person, and the surface is known. Terms: surface_parts, the cross-entropy
    (nats), and surface_depths (metres), the latter over the person's cells.
    """
    counts = valid[:, None, None].to(surface.dtype).expand_as(depth)
    person = counts * (parts > 0)
    wrong = F.cross_entropy(surface[:, :-1], parts, reduction="none")
    off = (surface[:, -1] - depth).abs()
    return {
        "surface_parts": (wrong * counts).sum() / global_count(counts.sum()),
        "surface_depths": (off * person).sum() / global_count(person.sum()),
    }


def uncertainty_term(
    log_scale: Float[Tensor, "b 30"],
    joints3d: Float[Tensor, "b 30 3"],
    truth: Float[Tensor, "b 30 3"],
    known: Float[Tensor, "b 30"],
) -> Float[Tensor, ""]:
    """Mean negative log likelihood of the pelvis-relative joint errors under the Student t of
    regressor/uncertainty.py, nats. Not in the paper.

    log_scale: of metres. joints3d, truth: metres. known: 1 where the joint is measured. The pelvis does not count, and
    joints3d gets no gradient. The constant is left out and the narrowest scale subtracted, so that the term is never
    negative, as automatic weighting requires.
    """
    measured = (known * known[:, :1])[:, 1:]
    off = _pelvis_relative_error(joints3d.detach(), truth)[:, 1:].square().sum(-1)  # (b, 29)
    log_scale = log_scale[:, 1:]
    tails = (TAILS + 3) / 2 * torch.log1p(off * torch.exp(-2 * log_scale) / TAILS)
    return ((tails + 3 * (log_scale - math.log(LEAST))) * measured).mean()


def global_count(count: Shaped[Tensor, ""]) -> Shaped[Tensor, ""]:
    """Divisor of this process's sum, such that averaging over the processes gives the mean over all their samples: the
    total count, at least 1, divided by the number of processes."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return count.clamp(min=1)
    total = count.detach().float()
    dist.all_reduce(total)  # pyright: ignore[reportUnknownMemberType]  (torch's stub)
    return total.clamp(min=1) / dist.get_world_size()
