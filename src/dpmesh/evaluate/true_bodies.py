"""The bodies that true parameters are posed with: the user's licensed SMPL files by gender, and the regressor."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Integer
from numpy.typing import NDArray

from dpmesh.assets import find_asset, require_asset, sha256
from dpmesh.body.files import load_body
from dpmesh.body.layer import BodyModel
from dpmesh.evaluate.interfaces import BodyTruth, Gender
from dpmesh.evaluate.protocol import Truth
from dpmesh.geometry.rotations import rotation_matrix


@dataclass(frozen=True, eq=False)
class PosedTruth:
    """Metres, camera frame (turned only, where Truth.placed is "origin"). joints: skeletons.H36M17."""

    vertices: Float32[np.ndarray, "b v 3"]
    joints: Float[np.ndarray, "b 17 3"]
    pelvis: Float[np.ndarray, "b 3"]


class TruthBodies:
    """Opens what a protocol's truth needs; raises AssetError with the next command for what was not imported."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        needed: dict[str, tuple[Gender, ...]] = {
            "annotated": ("male", "female"),
            "neutral": ("neutral",),
            "none": (),
        }
        self.genders = needed[truth.gender]
        h36m = require_asset("h36m_regressor") if self.genders else None
        paths: dict[Gender, Path] = {g: require_asset(f"smpl_{g}") for g in self.genders}
        extra = find_asset("extra_regressor")
        used = [p for p in (h36m, *paths.values()) if p is not None]
        self.files: dict[str, str] = {path.name: sha256(path) for path in used}
        self.bodies = {g: BodyModel(load_body(p, h36m=h36m, extra=extra)).eval() for g, p in paths.items()}

    @property
    def faces(self) -> Integer[np.ndarray, "f 3"] | None:
        return next((body.faces.numpy() for body in self.bodies.values()), None)

    @torch.inference_mode()
    def pose(self, truths: Sequence[BodyTruth]) -> PosedTruth:
        """Each with the body of its gender."""
        rows: list[tuple[NDArray[Any], ...]] = [()] * len(truths)
        for gender, body in self.bodies.items():
            chosen = [i for i, truth in enumerate(truths) if _gender(self.truth, truth) == gender]
            if not chosen:
                continue
            betas = np.zeros((len(chosen), 10), np.float32)
            with np.errstate(over="ignore"):  # score.py counts a truth that is not finite
                pose = np.stack([truths[i].pose for i in chosen]).astype(np.float32)
                for row, i in enumerate(chosen):
                    betas[row, : len(truths[i].betas)] = truths[i].betas
            out = body(torch.from_numpy(betas), rotation_matrix(torch.from_numpy(pose)))
            vertices = out.vertices
            if self.truth.placed == "camera":
                places = np.stack([self._place(truths[i]) for i in chosen]).astype(np.float32)
                vertices = vertices + torch.from_numpy(places)[:, None]
            joints = body.regress(vertices, "h36m17")
            pelvis = body.regress(vertices, "joints30")[:, 0]
            for row, i in enumerate(chosen):
                rows[i] = (vertices[row].numpy(), joints[row].double().numpy(), pelvis[row].double().numpy())
        return PosedTruth(*(np.stack([row[part] for row in rows]) for part in range(3)))

    def _place(self, truth: BodyTruth) -> NDArray[np.float64]:
        if truth.turned_about_pelvis is None:
            return truth.transl
        pelvis = _neutral_pelvis(truth.betas.tobytes())
        return truth.transl + truth.turned_about_pelvis @ pelvis - pelvis


def _gender(rule: Truth, truth: BodyTruth) -> Gender:
    return "neutral" if rule.gender == "neutral" else truth.gender


@cache
def _neutral_body() -> BodyModel:
    return BodyModel(load_body(require_asset("smpl_neutral")))


@cache
def _neutral_pelvis(betas: bytes) -> NDArray[np.float64]:
    """The pelvis at rest of the neutral body of these betas (float64 bytes), metres."""
    given = torch.zeros(1, 10)
    values = torch.from_numpy(np.frombuffer(betas)[:10].astype(np.float32))
    given[0, : len(values)] = values
    rest = torch.eye(3).expand(1, 24, 3, 3)
    return _neutral_body()(given, rest).joints[0, 0].double().numpy()
