"""The supervised terms of the paper's Eq. 9-11: L1 on 2D joints, 3D joints, pose, shape and the decoder's joints."""

import math
from dataclasses import dataclass, fields

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from dpmesh.geometry import CROP
from dpmesh.geometry.heatmap import draw_heatmaps
from dpmesh.regressor.uncertainty import LEAST, TAILS
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


@dataclass(frozen=True)
class Known:
    """Which targets are known: 1 or 0 for each joint, row of the pose, person (the *_valid fields of data/sample.py).

    fit2d, fit3d, fit: joints of the mesh that was fitted to the person, and whether there is one.
    """

    joints2d: Float[Tensor, "b 30"]
    joints3d: Float[Tensor, "b 30"]
    pose: Float[Tensor, "b 24"]
    betas: Float[Tensor, " b"]
    fit2d: Float[Tensor, "b 30 2"]
    fit3d: Float[Tensor, "b 30 3"]
    fit: Float[Tensor, " b"]

    @classmethod
    def everything(cls, truth: Answer) -> "Known":
        """Of people about whom everything is known; they are their own fit."""
        one = truth.betas.new_ones(len(truth.betas))
        joints = one[:, None].expand(-1, 30)
        return cls(joints, joints, one[:, None].expand(-1, 24), one, truth.joints2d, truth.joints3d, one)


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """One factor for each term; the terms are means over all numbers, in the units named in `loss_terms`.

    fit_img, fit3d: the terms of fitted meshes; nkr_contrast, nkr_mse: Eq. 7
    (train/objectives/distillation.py). With 0 they are not computed.
    only_inside: joints outside the crop do not count in joints2d, as in the released code; else they pull up to half
    a crop beyond its border.
    uncertainty: moves nothing but its own head (regressor/uncertainty.py), which Adam trains as fast with a small
    factor; a large one would fill the gradient's norm, by which all of it is clipped.
    automatic: on top of the factors, each term's weight is learned (`balanced`).
    """

    joints3d: float = 10.0
    joints2d: float = 5.0
    root: float = 1.0
    pose: float = 2.0
    pose_latent: float = 0.5
    betas: float = 0.05
    joints_img: float = 2.0
    fit_img: float = 0.0
    fit3d: float = 0.0
    nkr_contrast: float = 0.1
    nkr_mse: float = 0.1
    read_cells: float = 0.2
    read_places: float = 10.0
    read_depths: float = 3.0
    surface_parts: float = 0.5
    surface_depths: float = 3.0
    uncertainty: float = 0.01
    only_inside: bool = False
    automatic: bool = False

    def total(self, terms: dict[str, Tensor], balance: Float[Tensor, " n"] | None = None) -> Tensor:
        """The weighted sum. balance: one learned number for each of TERMS (`balanced`)."""
        weighted = {name: getattr(self, name) * value for name, value in terms.items()}
        if balance is not None:
            weighted = {name: balanced(value, balance[TERMS.index(name)]) for name, value in weighted.items()}
        return torch.stack(list(weighted.values())).sum()


TERMS = tuple(f.name for f in fields(LossWeights) if f.type in (float, "float"))
"""Names of all terms."""


def balanced(loss: Float[Tensor, ""], p: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Automatic weighting: L / (2 p²) + ln(1 + p²), p learned from 1 on (datasets.md §8; Liebel and Körner 2018)."""
    return loss / (2 * p.square()) + torch.log1p(p.square())


def loss_terms(
    answer: Answer,
    joints_img: Float[Tensor, "b 15 3"],
    truth: Answer,
    known: Known | None = None,
    weights: LossWeights | None = None,
) -> dict[str, Tensor]:
    """Unweighted terms. Of what is not known nothing counts, but a mean is over all numbers, masked ones included
    (datasets.md §8), so that parts of a batch average to the whole.

    joints3d: metres, relative to the pelvis (Eq. 10). joints2d: fractions of the crop (Eq. 9); joints far outside
    are compared as if they lay half a crop beyond its border. root, pose: entries of rotation matrices, betas:
    standard deviations (Eq. 11). joints_img: the decoder's 15 joints, only those inside the crop; where the depth
    is not measured, x and y count alone. fit_img, fit3d: the same of the fitted mesh.
    """
    known, weights = known or Known.everything(truth), weights or LossWeights()
    places = (answer.joints2d / CROP, truth.joints2d / CROP)
    placed, true_placed = (p.clamp(-0.5, 1.5) for p in places)
    seen = known.joints2d
    if weights.only_inside:
        seen = seen * ((places[1] >= 0) & (places[1] < 1)).all(-1)
    measured = known.joints3d * known.joints3d[:, :1]  # depths are told from the pelvis
    terms = {
        "joints3d": (_off_pelvis(answer.joints3d, truth.joints3d) * measured[..., None]).mean(),
        "joints2d": ((placed - true_placed).abs() * seen[..., None]).mean(),
        "root": _rotations_off(answer, truth, known, 0, 1),
        "pose": _rotations_off(answer, truth, known, 1, 22),
        "betas": ((answer.betas - truth.betas).abs() * known.betas[:, None]).mean(),
        "joints_img": _image_space_off(joints_img, truth.joints3d, truth.joints2d, known.joints2d, measured),
    }
    if weights.fit_img:
        fitted = known.fit[:, None].expand(-1, 30)
        terms["fit_img"] = _image_space_off(joints_img, known.fit3d, known.fit2d, fitted, fitted)
    if weights.fit3d:
        terms["fit3d"] = (_off_pelvis(answer.joints3d, known.fit3d) * known.fit[:, None, None]).mean()
    return terms


def _off_pelvis(a: Float[Tensor, "b 30 3"], b: Float[Tensor, "b 30 3"]) -> Float[Tensor, "b 30 3"]:
    return ((a - a[:, :1]) - (b - b[:, :1])).abs()


def _rotations_off(answer: Answer, truth: Answer, known: Known, first: int, end: int) -> Tensor:
    off = (answer.rotations[:, first:end] - truth.rotations[:, first:end]).abs()
    return (off * known.pose[:, first:end, None, None]).mean()


def _image_space_off(
    joints_img: Float[Tensor, "b 15 3"],
    joints3d: Float[Tensor, "b 30 3"],
    joints2d: Float[Tensor, "b 30 2"],
    annotated: Float[Tensor, "b 30"],
    measured: Float[Tensor, "b 30"],
) -> Float[Tensor, ""]:
    """Of the decoder's joints those inside the crop (and, measured, within a metre of the pelvis' depth)."""
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
    places: Float[Tensor, "b 30 3"],
    truth: Answer,
    known: Known | None = None,
) -> dict[str, Tensor]:
    """How well the joints are read off the finest map (backbone/joint_reading.py); not in the paper.

    read_cells: cross-entropy with a Gaussian of one cell about the true place, nats; read_places: fractions of the
    crop; both only for joints inside it. read_depths: metres.
    """
    known = known or Known.everything(truth)
    inside = ((truth.joints2d >= 0) & (truth.joints2d < CROP)).all(-1) & (known.joints2d > 0)
    count = over_all(inside.sum())
    target = draw_heatmaps(truth.joints2d, inside.to(scores.dtype), size=scores.shape[-1], sigma=1.0).flatten(
        2
    )
    target = target / target.sum(-1, keepdim=True).clamp(min=1e-6)
    off = (places[..., :2] - truth.joints2d).abs().mean(-1) / CROP
    depth = truth.joints3d[..., 2] - truth.joints3d[:, :1, 2]
    measured = known.joints3d * known.joints3d[:, :1]
    return {
        "read_cells": -(target * scores.flatten(2).log_softmax(-1)).sum() / count,
        "read_places": (off * inside).sum() / count,
        "read_depths": ((places[..., 2] - depth).abs() * measured).mean(),
    }


def surface_terms(
    surface: Float[Tensor, "b k s s"],
    parts: Int[Tensor, "b s s"],
    depth: Float[Tensor, "b s s"],
    own: Bool[Tensor, " b"],
) -> dict[str, Tensor]:
    """How well the person's surface is told (JointsRead.surface); not in the paper.

    parts: the true class of each cell, 0 for no person. depth: true metres behind the pelvis. own: whose picture
    is their own and whose surface is known; the others do not count. surface_parts: cross-entropy, nats;
    surface_depths: metres, over the person's cells.
    """
    counts = own[:, None, None].to(surface.dtype).expand_as(depth)
    person = counts * (parts > 0)
    wrong = F.cross_entropy(surface[:, :-1], parts, reduction="none")
    off = (surface[:, -1] - depth).abs()
    return {
        "surface_parts": (wrong * counts).sum() / over_all(counts.sum()),
        "surface_depths": (off * person).sum() / over_all(person.sum()),
    }


def uncertainty_term(
    log_scale: Float[Tensor, "b 30"],
    joints3d: Float[Tensor, "b 30 3"],
    truth: Float[Tensor, "b 30 3"],
    known: Float[Tensor, "b 30"],
) -> Float[Tensor, ""]:
    """Negative log likelihood of the joints' errors (metres, less the pelvis) under the model of
    regressor/uncertainty.py, nats a joint; not in the paper. Without its constant, and told from the narrowest scale,
    so that it is never negative, which the automatic weighting could not bear. The pelvis does not count.

    known: 1 where the joint is measured. The answer gets no gradient.
    """
    measured = (known * known[:, :1])[:, 1:]
    off = _off_pelvis(joints3d.detach(), truth)[:, 1:].square().sum(-1)  # (b, 29)
    log_scale = log_scale[:, 1:]
    tails = (TAILS + 3) / 2 * torch.log1p(off * torch.exp(-2 * log_scale) / TAILS)
    return ((tails + 3 * (log_scale - math.log(LEAST))) * measured).mean()


def over_all(count: Shaped[Tensor, ""]) -> Shaped[Tensor, ""]:
    """What this process's sum is divided by, so that the mean over the processes is the mean over all their people:
    the count of all, at least 1, for each process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return count.clamp(min=1)
    total = count.detach().float()
    dist.all_reduce(total)  # pyright: ignore[reportUnknownMemberType]  (torch's stub)
    return total.clamp(min=1) / dist.get_world_size()
