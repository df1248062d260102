"""Cross-attention maps of each joint over each person's crop (the paper's Figure 6), as arrays and as figures."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray

from dpmesh.errors import ConfigError
from dpmesh.geometry.crop import Crop
from dpmesh.inference.options import PredictOptions
from dpmesh.inference.output_formats import wanted_attention
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.preprocess import ImageSource, PersonInput, model_inputs, prepare_image
from dpmesh.inference.result_folder import folder_name, png, write_result
from dpmesh.skeletons import JOINTS30

_DEFAULTS = PredictOptions()


@dataclass(frozen=True, eq=False)
class PersonAttention:
    """One person. Joints are `skeletons.JOINTS30`."""

    crop: Crop
    """The person's window in the image."""
    rgb: UInt8[np.ndarray, "256 256 3"]
    """The crop, the model's input."""
    maps: dict[int, Float[np.ndarray, "30 s s"]]
    """Cells per side -> attention of each cell of the crop to each joint's token: the mean over heads and layers of a
    softmax over the joints, so the 30 numbers of a cell sum to 1."""
    joints: Float[np.ndarray, "30 2"]
    """The input keypoints, crop pixels."""
    visible: Bool[np.ndarray, "30"]
    """Whether the joint was visible, so that the model's prompt has it."""
    score: float

    def over_crop(self) -> Float[np.ndarray, "30 256 256"]:
        """Per joint the mean of its maps, each enlarged (bilinear) to the crop's pixels."""
        large = [
            np.stack([cv2.resize(m, (Crop.SIZE, Crop.SIZE), interpolation=cv2.INTER_LINEAR) for m in maps])
            for maps in self.maps.values()
        ]
        return np.stack(large).mean(0)

    def averaged(self) -> Float[np.ndarray, "256 256"]:
        """The mean over the visible joints (over all, where none is), each stretched to [0, 1] first: the plain mean
        over all 30 is 1/30 everywhere, by softmax."""
        chosen = self.visible if self.visible.any() else np.ones(len(self.visible), bool)
        return np.stack([stretch(heat) for heat in self.over_crop()[chosen]]).mean(0)


@dataclass(frozen=True, eq=False)
class Attention:
    """All people of one image, highest score first.

    source: the image as named by the user; source_sha256: of its file, else empty.
    """

    people: tuple[PersonAttention, ...]
    source: str = ""
    source_sha256: str = ""
    weights: str = ""
    notes: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    """What the maps depend on (inference/options.py)."""

    def save(self, out: str | Path, name: str | None = None, overwrite: bool = False) -> Path:
        """Write `out/name/` (name: the image's stem) whole or not at all; returns that folder. As Scene.save.

        For each person NN: person_NN_joints.png, person_NN_mean.png, person_NN.npz (docs/reference/output.md).
        Raises OutputError.
        """
        wanted = wanted_attention(self.source_sha256, self.source, self.options)
        folder = name or folder_name(self.source) or "attention"
        return write_result(Path(out), folder, wanted, lambda _: self._contents(), overwrite)

    def _contents(self) -> dict[str, bytes]:
        contents: dict[str, bytes] = {}
        for i, person in enumerate(self.people):
            heat = person.over_crop()
            contents[f"person_{i:02d}_joints.png"] = png(
                joint_sheet(person.rgb, heat, person.joints, person.visible)
            )
            contents[f"person_{i:02d}_mean.png"] = png(
                mean_sheet(person.rgb, person.averaged(), person.joints, person.visible)
            )
            contents[f"person_{i:02d}.npz"] = self._npz(person)
        return contents

    def _npz(self, person: PersonAttention) -> bytes:
        crop, file = person.crop, io.BytesIO()
        maps: dict[str, Any] = {f"map_{size}": maps for size, maps in person.maps.items()}
        np.savez_compressed(
            file,
            crop_box=np.array([crop.x1, crop.y1, crop.x1 + crop.side, crop.y1 + crop.side], np.float64),
            crop_roll=np.float64(crop.roll),
            joint_names=np.array(JOINTS30.joints, dtype=np.str_),
            joints=person.joints,
            told=person.visible,
            score=np.float32(person.score),
            mean=person.averaged(),
            source=np.str_(self.source),
            source_sha256=np.str_(self.source_sha256),
            weights=np.str_(self.weights),
            **maps,
        )
        return file.getvalue()


@torch.inference_mode()
def attention_maps(
    predictor: Predictor, image: ImageSource, options: PredictOptions = _DEFAULTS
) -> Attention:
    """The attention maps of every person in one image (a path, a PIL image or an RGB array).

    Raises InputError, and ConfigError for a model whose backbone has no cross-attention.
    """
    recorded = {**predictor.options, **options.record()}
    prepared = prepare_image(predictor.detector, image, options)
    persons, size = prepared.persons, predictor.batch
    people = [
        person
        for start in range(0, len(persons), size)
        for person in _people(predictor, persons[start : start + size])
    ]
    notes = (*prepared.image.notes, *predictor.notes)
    return Attention(tuple(people), prepared.source, prepared.sha256, predictor.name, notes, recorded)


def _people(predictor: Predictor, persons: list[PersonInput]) -> list[PersonAttention]:
    inputs = model_inputs(persons, predictor.model.camera, predictor.device)
    features = predictor.model(inputs, features=True).features
    if features is None or not features.maps:
        raise ConfigError(
            "this model's backbone has no cross-attention maps",
            where=predictor.name or "attention",
            fix="Use weights whose backbone is a diffusion U-Net with a joint prompt.",
        )
    maps = {size: m.float().cpu().numpy() for size, m in sorted(features.maps.items())}
    rgb = (inputs.crop * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    joints, visible = inputs.joints.cpu().numpy(), inputs.visible.cpu().numpy() > 0
    return [
        PersonAttention(
            person.crop,
            rgb[i],
            {size: m[i] for size, m in maps.items()},
            joints[i],
            visible[i],
            float(person.detection.score),
        )
        for i, person in enumerate(persons)
    ]


# Figures of attention: heat over a person's crop, one tile per joint, or one for all.


COLUMNS = 6
TILE, LABEL = 200, 34
"""Pixels: side of a tile, height of the two lines of text under it."""
LARGE = 512
"""Pixels: side of each half of the averaged figure."""
_WHITE, _GREY = (235, 235, 235), (130, 130, 130)


def joint_sheet(
    rgb: UInt8[np.ndarray, "256 256 3"],
    heat: Float[np.ndarray, "30 256 256"],
    joints: Float[np.ndarray, "30 2"],
    visible: Bool[np.ndarray, "30"],
) -> UInt8[np.ndarray, "h w 3"]:
    """A tile per joint of `skeletons.JOINTS30`, in order, each stretched to its own range; the range is printed below.

    joints: crop pixels. A ring marks a visible joint; the name of one that is not visible is grey.
    """
    tiles = [
        _tile(rgb, heat[i], joints[i] if visible[i] else None, name) for i, name in enumerate(JOINTS30.joints)
    ]
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    return np.vstack(rows)


def mean_sheet(
    rgb: UInt8[np.ndarray, "256 256 3"],
    heat: Float[np.ndarray, "256 256"],
    joints: Float[np.ndarray, "30 2"],
    visible: Bool[np.ndarray, "30"],
) -> UInt8[np.ndarray, "512 1024 3"]:
    """Left the crop with its visible joints, right the heat over the crop."""
    plain = _enlarged(rgb, LARGE)
    for point in joints[visible]:
        _ring(plain, point, LARGE)
    return np.hstack([plain, blend(_enlarged(rgb, LARGE), _heat(stretch(heat), LARGE))])


def stretch(heat: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Scaled linearly so that the least value is 0 and the greatest 1; a flat map is 0."""
    low, high = float(heat.min()), float(heat.max())
    # Rounding must not be taken for a pattern: float32 resolves about 1e-7 of the greatest value.
    return np.zeros_like(heat) if high - low <= 1e-5 * abs(high) else (heat - low) / (high - low)


def blend(rgb: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """heat in [0, 1] as colour over the grey image: the higher, the more opaque."""
    grey = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2) * 0.75
    levels = np.clip(heat * 255, 0, 255).astype(np.uint8)
    colour = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    weight = 0.15 + 0.6 * heat[..., None]
    return np.clip(grey * (1 - weight) + colour * weight, 0, 255).astype(np.uint8)


def _tile(
    rgb: UInt8[np.ndarray, "256 256 3"],
    heat: Float[np.ndarray, "256 256"],
    point: Float[np.ndarray, "2"] | None,
    name: str,
) -> NDArray[np.uint8]:
    tile = blend(_enlarged(rgb, TILE), _heat(stretch(heat), TILE))
    if point is not None:
        _ring(tile, point, TILE)
    tile[:, -1] = tile[-1] = 0  # a line between tiles
    strip = np.zeros((LABEL, TILE, 3), np.uint8)
    colour = _GREY if point is None else _WHITE
    _write(strip, name if point is not None else f"{name} (hidden)", 14, colour)
    _write(strip, f"{heat.min():.4f} to {heat.max():.4f}", 28, _GREY)
    return np.vstack([tile, strip])


def _write(strip: NDArray[np.uint8], text: str, y: int, colour: tuple[int, int, int]) -> None:
    cv2.putText(strip, text, (4, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)


def _enlarged(rgb: UInt8[np.ndarray, "h w 3"], side: int) -> NDArray[np.uint8]:
    return cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _heat(heat: Float[np.ndarray, "h w"], side: int) -> NDArray[np.float32]:
    large = cv2.resize(heat, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.clip(large, 0, 1).astype(np.float32, copy=False)


def _ring(image: NDArray[np.uint8], point: Float[np.ndarray, "2"], side: int) -> None:
    """Where a joint lies; point in crop pixels, whole numbers are pixel centres."""
    x, y = (round((float(v) + 0.5) * side / 256 - 0.5) for v in point)
    cv2.circle(image, (x, y), 5, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.circle(image, (x, y), 5, (90, 230, 255), 1, cv2.LINE_AA)
