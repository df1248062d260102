"""Images of the people with the largest errors: the inputs, the prediction, the truth, and both from the side."""

import io
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from dpmesh.evaluate.checks import file_name
from dpmesh.evaluate.evaluation import Evaluation
from dpmesh.evaluate.folder import MARK, WORST
from dpmesh.evaluate.interfaces import Persons
from dpmesh.evaluate.results import Rows, inputs_of
from dpmesh.geometry.crop import Crop
from dpmesh.io import atomic_write
from dpmesh.render.overlay import Layer, draw_overlay, palette
from dpmesh.skeletons import H36M17
from dpmesh.types import Prediction

COUNT = 20
_SIDE = 384
"""Pixels of a panel's side; drawing time grows with its square."""
_INPUT, _TRUE = (80, 255, 120), (255, 190, 60)


def worst_of(rows: Rows, count: int = COUNT) -> list[int]:
    """Source indices of the people with the largest MPJPE, failures first."""
    badness = np.where(rows.failed, np.inf, rows.mpjpe)
    usable = np.flatnonzero(np.logical_not(rows.unusable))
    return [int(rows.index[i]) for i in usable[np.argsort(-badness[usable], kind="stable")][:count]]


def draw_worst(evaluation: Evaluation, rows: Rows, count: int = COUNT) -> list[Path]:
    """Write JPEGs to worst/, the largest errors first. The model is run again on these people. Raises OutputError."""
    by_index = {int(index): i for i, index in enumerate(rows.index)}
    written: list[Path] = []
    for rank, index in enumerate(worst_of(rows, count), start=1):
        row = by_index[index]
        persons = evaluation.source.persons([index])
        with torch.inference_mode():
            prediction = evaluation.model(inputs_of(persons, evaluation.model.camera, evaluation.device))
        missed = persons.missed is not None and bool(persons.missed[0])
        sheet = draw(evaluation, persons, prediction, _caption(rows, row, missed))
        path = evaluation.config.folder / WORST / f"{rank:02d}_{file_name(persons.ids[0])}.jpg"
        buffer = io.BytesIO()
        Image.fromarray(sheet).save(buffer, "JPEG", quality=88, comment=MARK)
        atomic_write(path, buffer.getvalue())
        written.append(path)
    return written


def _caption(rows: Rows, row: int, missed: bool) -> str:
    numbers = (("MPJPE", rows.mpjpe), ("PA", rows.pa_mpjpe), ("MPVE", rows.mpve))
    errors = [f"{name} {values[row]:.0f}" for name, values in numbers if np.isfinite(values[row])]
    return f"{str(rows.ids[row])[:80]}   " + (
        "not detected"
        if missed
        else "no finite prediction"
        if rows.failed[row]
        else "  ".join(errors) + " mm"
    )


def draw(
    evaluation: Evaluation, persons: Persons, prediction: Prediction, caption: str
) -> UInt8[np.ndarray, "h w 3"]:
    """Four panels of one person under a caption. The true body is moved to the predicted pelvis, so that the panels
    compare poses, not places. Input keypoints are green, true joints (of sets without bodies) orange."""
    crop = cv2.resize(persons.crops[0], (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
    scale = _SIDE / Crop.SIZE
    focal = float(prediction.focal[0]) * scale
    middle = (Crop.SIZE / 2 + 0.5) * scale - 0.5
    K = np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
    keypoints = crop.copy()
    for point in persons.joints[0][persons.visible[0] > 0]:
        _dot(keypoints, (point + 0.5) * scale - 0.5, _INPUT)
    mesh = prediction.vertices[0].float().cpu().numpy()
    faces = evaluation.model.body.faces.cpu().numpy()
    panels = [keypoints]
    colours = palette(2)
    if not np.isfinite(mesh).all():
        panels += [np.full_like(crop, 40)] * 3
        return _sheet(panels, caption)
    panels.append(draw_overlay(crop, [Layer(mesh, colours[0])], faces, K))
    pelvis = prediction.joints3d[0, 0].float().cpu().numpy()
    # From the camera frame to the prediction's.
    back = persons.turn[0].T if evaluation.model.camera == "crop" else np.eye(3)
    grey = np.full_like(crop, 70)
    side = draw_overlay(grey, [Layer(_quarter(mesh, pelvis), colours[0])], faces, K)
    if (
        persons.truth_vertices is not None
        and persons.truth_pelvis is not None
        and evaluation.source.faces is not None
    ):
        true = (persons.truth_vertices[0] - persons.truth_pelvis[0]) @ back.T + pelvis
        layer, turned = (Layer(v.astype(np.float32), colours[1]) for v in (true, _quarter(true, pelvis)))
        panels.append(draw_overlay(crop, [layer], evaluation.source.faces, K))
        both = (side.astype(np.uint16) + draw_overlay(grey, [turned], evaluation.source.faces, K)) // 2
        panels.append(both.astype(np.uint8))
    else:
        true = (persons.truth_joints[0] - persons.truth_joints[0, 0]) @ back.T + pelvis
        panels.append(_skeleton(crop.copy(), true, persons.measured[0], K))
        panels.append(_skeleton(side, _quarter(true, pelvis), persons.measured[0], K))
    return _sheet(panels, caption)


def _quarter(points: Float[np.ndarray, "n 3"], pelvis: Float[np.ndarray, "3"]) -> Float[np.ndarray, "n 3"]:
    """Rotated by 90 degrees about the vertical axis through the pelvis: a side view."""
    turn = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    return ((points - pelvis) @ turn.T + pelvis).astype(np.float32)


def _skeleton(
    image: UInt8[np.ndarray, "h w 3"], joints: Float[np.ndarray, "17 3"], measured: np.ndarray, K: np.ndarray
) -> UInt8[np.ndarray, "h w 3"]:
    flat = joints @ K.T
    pixels = flat[:, :2] / np.maximum(flat[:, 2:], 1e-6)
    for a, b in H36M17.limbs:
        if measured[a] and measured[b]:
            start, end = (tuple(int(v) for v in np.clip(pixels[i], -9999, 9999)) for i in (a, b))
            cv2.line(image, start, end, _TRUE, 3, cv2.LINE_AA)
    for point in pixels[measured > 0]:
        _dot(image, point, _TRUE)
    return image


def _dot(image: UInt8[np.ndarray, "h w 3"], point: np.ndarray, colour: tuple[int, int, int]) -> None:
    centre = tuple(round(float(v)) for v in np.clip(point, -9999, 9999))
    cv2.circle(image, centre, 6, (0, 0, 0), -1, cv2.LINE_AA)
    cv2.circle(image, centre, 4, colour, -1, cv2.LINE_AA)


def _sheet(panels: list[UInt8[np.ndarray, "h w 3"]], caption: str) -> UInt8[np.ndarray, "h2 w2 3"]:
    sheet = np.concatenate(panels, 1)
    line = np.full((40, sheet.shape[1], 3), 20, np.uint8)
    text = caption.encode("ascii", "replace").decode()
    cv2.putText(line, text, (10, 27), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (235, 235, 235), 1, cv2.LINE_AA)
    return np.concatenate([line, sheet], 0)
