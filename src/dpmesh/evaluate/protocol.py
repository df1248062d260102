"""Evaluation protocols as frozen values. Every setting that decides a number is a field, and the hash covers it.

Changing a field makes another protocol: raise `version`, and update the hash in tests/evaluate/test_protocols.py.
docs/guide/evaluation.md explains the choices. Editions: "paper" follows the paper, "as-run" the released code where
that differs; others replace inputs that are not public.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from dpmesh.errors import ConfigError, InputError
from dpmesh.geometry.crop import Crop
from dpmesh.skeletons import H36M14_ROWS, H36M17

Edition = Literal["paper", "as-run", "detector", "annotated"]
KeypointSource = Literal[
    "openpose", "hhrnet", "hrnet", "detector", "annotated", "noise", "recorded or noise", "detector, whole image"
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which people are evaluated. sequences: by name; empty is all. families: by name without the number. frames:
    (sequence, first, end), end exclusive. rule: which of their person-frames count (frame_selection.py for 3DPW, else
    readers/)."""

    dataset: str
    splits: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    frames: tuple[tuple[str, int, int], ...] = ()
    rule: Literal["posed and inside", "posed with keypoints", "all", "measured", "fitted"] = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionWithout(Selection):
    """A selection without some sequences: by name, and by name without the number. A subclass, so that the definitions
    (and hashes) of other protocols do not change."""

    left_out: tuple[str, ...] = ()
    left_out_families: tuple[str, ...] = ()

    def leaves_out(self, sequence: str) -> bool:
        return sequence in self.left_out or sequence.rpartition("_")[0] in self.left_out_families


@dataclass(frozen=True, kw_only=True, slots=True)
class KeypointRule:
    """Where the input keypoints come from. threshold: a joint is observed above this confidence (and inside the crop).

    "detector": the shipped detector, run in the annotated box; "detector, whole image": it detects the people too.
    "annotated": ground-truth 2D joints, which makes the task easier than the published one. "noise": data/noise.py's
    model of a detector (synthetic sets). "recorded or noise": detected joints stored in the record if there are any,
    else that model's.
    """

    source: KeypointSource
    threshold: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"threshold={self.threshold} is no confidence", where="Keypoints")


MISSED = "person: not detected"
BOX_FALLBACK, IMAGE_FALLBACK = "box: the annotated one", "box: the whole picture"


@dataclass(frozen=True, kw_only=True, slots=True)
class CropRule:
    """The square window around a person: the bounding box of the observed joints, its sides times `joints`, moved into
    the image, made square on the longer side, times `square`. fallback: the box for fewer than two observed joints.
    sampling: of the pixels."""

    joints: float = 1.2
    square: float = 1.1
    fallback: Literal["annotated box", "annotated corners taken for x y w h"] = "annotated box"
    sampling: Literal["bilinear"] = "bilinear"

    def window(
        self,
        points: Float[np.ndarray, "n 2"],
        observed: Bool[np.ndarray, " n"],
        annotated: Float[np.ndarray, "4"],
        size: tuple[int, int],
    ) -> tuple[Crop, str]:
        """The crop around the observed points (image px) of an image of `size` (h, w), and the fallback used, if any.

        Fewer than two points, points that coincide, or a box outside the image give no window: then the annotated box
        (x1 y1 x2 y2), else the whole image is used, so that no person is left out. Raises InputError for an image
        without area.
        """
        if observed.sum() > 1:
            low, high = points[observed].min(0), points[observed].max(0)
            half = (high - low) / 2 * self.joints
            middle = (low + high) / 2
            crop = self._square(np.concatenate([middle - half, middle + half]), size)
            if crop is not None:
                return crop, ""
        if self.fallback == "annotated corners taken for x y w h":
            annotated = np.concatenate([annotated[:2], annotated[:2] + annotated[2:]])
        crop = self._square(annotated, size)
        if crop is not None:
            return crop, BOX_FALLBACK
        whole = self._square(np.array([0.0, 0.0, size[1], size[0]]), size)
        if whole is None:
            raise InputError(f"an image of {size[1]}×{size[0]} pixels has no window", where="image")
        return whole, IMAGE_FALLBACK

    def _square(self, box: Float[np.ndarray, "4"], size: tuple[int, int]) -> Crop | None:
        """The box moved into the image, squared and enlarged; None if it has no extent there.

        A box that begins outside is shifted, not cut, as in 3DCrowdNet and its successors.
        """
        x1, y1 = max(0.0, box[0]), max(0.0, box[1])
        x2 = min(size[1] - 1.0, x1 + max(0.0, box[2] - box[0] - 1))
        y2 = min(size[0] - 1.0, y1 + max(0.0, box[3] - box[1] - 1))
        side = max(x2 - x1, y2 - y1) * self.square
        if not (np.isfinite([x1, y1, x2, y2]).all() and x2 >= x1 and y2 >= y1 and side > 0):
            return None
        return Crop((x1 + x2 - side) / 2, (y1 + y2 - side) / 2, side)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """The generator of a synthetic set renders the crop itself. box: what it frames."""

    box: Literal["true box of the joints inside the picture"] = "true box of the joints inside the picture"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """The window of a packed person (`dpmesh data pack`), as in validation during training: the box made square, times
    `box`; each pixel is the mean of the image pixels that it covers."""

    box: float = 1.1


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeImage:
    """People are detected in the whole image and cropped as in `dpmesh predict`: `box` times the longer side of the
    detected box. Of the detected people the one nearest to the truth is evaluated: by the median distance of the
    visible keypoints from the true joints, relative to the longer side of the annotated box. Beyond `match` the person
    is missed."""

    box: float = 1.2
    match: float = 0.15


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """The ground truth. gender: of the body posed with the true parameters; "none" if the truth is measured joints.
    placed: where the true mesh stands when its joints are regressed. The regressor's rows sum to 1 only within 0.04 %,
    so a mesh 5 m away ("camera", as in the released code) gets joints up to 2 mm elsewhere."""

    gender: Literal["annotated", "neutral", "none"]
    placed: Literal["origin", "camera"] = "origin"


OWN_JOINTS = "joints30"
Metric = Literal["MPJPE", "PA-MPJPE", "MPVE", "lateral", "depth", "acceleration", "foot slide"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """The metrics.

    regressor: the file that gives joints from a mesh, or OWN_JOINTS: the predicted body's own joints of the same names,
    for a truth with SMPL's joints. rows: measured joints; joint_root: the row that is subtracted; vertex_root: for
    MPVE. unmeasured_joints: joints that the truth marks as not measured count with an error of 0 ("as zero"), or the
    truth has none. aggregation: of the people's numbers.
    """

    metrics: tuple[Metric, ...] = ("MPJPE", "PA-MPJPE", "MPVE")
    regressor: str = "J_regressor_h36m_correct"
    rows: tuple[int, ...] = H36M14_ROWS
    joint_root: int = 0
    vertex_root: Literal["SMPL pelvis"] = "SMPL pelvis"
    alignment: Literal["similarity on the measured rows, no reflection"] = (
        "similarity on the measured rows, no reflection"
    )
    unmeasured_joints: Literal["none", "as zero"] = "none"
    aggregation: Literal["mean over persons"] = "mean over persons"

    @property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(H36M17.joints[row] for row in self.rows)

    def root(self, joints: Float[np.ndarray, "b 17 3"]) -> Float[np.ndarray, "b 1 3"]:
        """What is subtracted from the joints."""
        return joints[:, self.joint_root, None]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureFromHips(Measure):
    """Relative to the middle of the hips, of truth and prediction, where the truth has no pelvis. lateral, depth: the
    mean size of the joints' errors across and along the line from the camera to the true root. A subclass, so that the
    hashes of other protocols do not change."""

    centre: Literal["middle of the hips"] = "middle of the hips"

    def root(self, joints: Float[np.ndarray, "b 17 3"]) -> Float[np.ndarray, "b 1 3"]:
        return joints[:, [H36M17.index("L_Hip"), H36M17.index("R_Hip")]].mean(1, keepdims=True)


def _unhashed(default: Any) -> Any:
    return field(default=default, metadata={"hashed": False})


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """One way to evaluate on one data set. focal: the input focal length: the image's diagonal (paper §3.4), or the
    annotated one ("given"). matching: which prediction belongs to a person.

    persons: the published number of people, reported next to the actual one; it decides nothing.
    """

    name: str
    edition: Edition = "paper"
    version: int = 1
    selection: Selection
    keypoints: KeypointRule
    crop: CropRule | Rendered | Stored | WholeImage = CropRule()
    focal: Literal["diagonal", "given"] = "diagonal"
    truth: Truth
    measure: Measure = Measure()
    matching: Literal["own crop", "nearest keypoints"] = "own crop"
    title: str = _unhashed("")
    persons: int | None = _unhashed(None)
    notes: tuple[str, ...] = _unhashed(())

    @property
    def full_name(self) -> str:
        """`name` for the edition "paper", else `name@edition`, as on the command line."""
        return self.name if self.edition == "paper" else f"{self.name}@{self.edition}"

    def definition(self) -> dict[str, Any]:
        """All hashed fields, as plain data."""
        hashed = {f.name for f in fields(self) if f.metadata.get("hashed", True)}
        return json.loads(json.dumps({name: value for name, value in asdict(self).items() if name in hashed}))

    @property
    def hash(self) -> str:
        return hash_of(self.definition())


def hash_of(definition: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the SHA-256 of a protocol's definition as canonical JSON."""
    text = json.dumps(definition, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
