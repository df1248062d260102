"""What an evaluation does, as frozen values. Everything that decides a number is a field, and the hash covers it.

A change of any field is another protocol: raise `version`, and tests/evaluate/test_protocols.py wants the new hash.
docs/evaluation.md says why each choice is as it is. Editions: "paper" is what the paper means, "as-run" what the
released code does where that differs, others replace inputs that cannot be had by ones that can.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from dpmesh.errors import ConfigError
from dpmesh.skeletons import H36M14_ROWS, H36M17

Edition = Literal["paper", "as-run", "detector", "annotated"]
KeypointSource = Literal["openpose", "hhrnet", "hrnet", "detector", "annotated", "noise", "recorded or noise"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which persons. sequences: by name; none is all. families: by name without the number. frames: (sequence, first,
    end), end exclusive. rule: which person-frames of those count (readers/ say how each is computed)."""

    dataset: str
    splits: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    frames: tuple[tuple[str, int, int], ...] = ()
    rule: Literal["posed and inside", "posed with keypoints", "all", "measured", "fitted"] = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionWithout(Selection):
    """A selection less some sequences: by name, and by name without the number. A class of its own, so that the
    definitions (and hashes) of protocols that leave nothing out do not change."""

    left_out: tuple[str, ...] = ()
    left_out_families: tuple[str, ...] = ()

    def leaves_out(self, sequence: str) -> bool:
        return sequence in self.left_out or sequence.rpartition("_")[0] in self.left_out_families


@dataclass(frozen=True, kw_only=True, slots=True)
class Keypoints:
    """What the model is told. threshold: a joint counts as seen above this confidence (and inside the crop).

    "detector": the shipped one, asked inside the annotated box. "annotated": the set's own true 2D joints, which makes
    the task easier than the published one. "noise": data/noise.py's model of a detector (synthetic sets). "recorded or
    noise": a detector's joints where the record holds them, else that model's.
    """

    source: KeypointSource
    threshold: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"threshold={self.threshold} is no confidence", where="Keypoints")


@dataclass(frozen=True, kw_only=True, slots=True)
class CropRule:
    """The square window: the seen joints' box, each side times `joints`, brought into the picture, made square on the
    longer side, times `square`. fallback: the box where fewer than two joints are seen. sampling: of the pixels."""

    joints: float = 1.2
    square: float = 1.1
    fallback: Literal["annotated box", "annotated corners taken for x y w h"] = "annotated box"
    sampling: Literal["bilinear"] = "bilinear"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """No window is cut: the set's generator draws what the crop's camera sees. box: what it frames."""

    box: Literal["true box of the joints inside the picture"] = "true box of the joints inside the picture"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """The window of a packed person (`dpmesh data pack`), as training's validation cuts it: the box made square, times
    `box`; each pixel the mean of those that it covers."""

    box: float = 1.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """What the answer is compared with. gender: of the body that the true parameters are posed with; "none" where the
    truth is measured joints. placed: where the true mesh stands when its joints are regressed: the regressor's rows
    sum to 1 only within 0.04 %, so that a mesh 5 m away ("camera", as released) gets joints up to 2 mm elsewhere."""

    gender: Literal["annotated", "neutral", "none"]
    placed: Literal["origin", "camera"] = "origin"


OWN_JOINTS = "joints30"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """regressor: the file that gives joints from a mesh, or OWN_JOINTS: the answer's own joints of the same names, for
    a truth that has SMPL's. rows: those that are measured; joint_root: the row that is subtracted; vertex_root: for
    MPVE. hidden_joints: joints that the truth marks as not measured add 0 and still count ("as zero"), or the truth
    has none. aggregation: of the persons' numbers."""

    metrics: tuple[Literal["MPJPE", "PA-MPJPE", "MPVE"], ...] = ("MPJPE", "PA-MPJPE", "MPVE")
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


def _unhashed(default: Any) -> Any:
    return field(default=default, metadata={"hashed": False})


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """One way to measure on one set. focal: what the model is told of the lens: the picture's diagonal (paper §3.4),
    or what the set gives ("given"). matching: which prediction belongs to a person.

    persons: the published count, which is compared with what is found and decides nothing.
    """

    name: str
    edition: Edition = "paper"
    version: int = 1
    selection: Selection
    keypoints: Keypoints
    crop: CropRule | Rendered | Stored = CropRule()
    focal: Literal["diagonal", "given"] = "diagonal"
    truth: Truth
    measure: Measure = Measure()
    matching: Literal["own crop"] = "own crop"
    title: str = _unhashed("")
    persons: int | None = _unhashed(None)
    notes: tuple[str, ...] = _unhashed(())

    @property
    def full_name(self) -> str:
        """`name` for the edition "paper", else `name@edition`: what the command line takes."""
        return self.name if self.edition == "paper" else f"{self.name}@{self.edition}"

    def definition(self) -> dict[str, Any]:
        """All that decides a number, as plain data."""
        hashed = {f.name for f in fields(self) if f.metadata.get("hashed", True)}
        return json.loads(json.dumps({name: value for name, value in asdict(self).items() if name in hashed}))

    @property
    def hash(self) -> str:
        return hash_of(self.definition())


def hash_of(definition: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the SHA-256 of a protocol's definition as canonical JSON."""
    text = json.dumps(definition, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
