"""The options of a prediction: defined once for Python and the command line, and as every result records them.

The docstring of a field is also its help: the first paragraph on the command line, all of it in Python. Light to
import: the command line compares options with those of an earlier result before it loads a model.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from dpmesh.assets import find_asset, weights_folder
from dpmesh.errors import ConfigError, InputError, WeightsError
from dpmesh.inference.corrections import Correction, Corrections, corrections_record
from dpmesh.inference.option_docs import with_option_docs
from dpmesh.io import open_regular, reason

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

RecordedOptions = Mapping[str, object]
"""Option -> plain JSON value; of a file its name and sha256."""

MAX_PEOPLE = 20
MAX_PIXELS = 120_000_000
"""The largest phone photos pass, 30,000 × 30,000 pixels do not."""
MOST_HYPOTHESES = 32
MOST_ROLL = 180.0


@with_option_docs
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What `Predictor.from_pretrained` loads: the keyword arguments it takes. Raises ConfigError for excluding ones."""

    weights: str | Path = "embedded"
    """Model weights: a shipped name or a folder."""
    device: str = "auto"
    """Where the model runs; auto: CUDA if available, else the CPU."""
    threads: int = 1
    """CPU threads of torch and the detector.

    Set for the whole process. On small images more than one is seldom faster.
    """
    fast: bool = False
    """Detect keypoints in one pass over the whole image, refine from one pass: faster, at most six people."""
    body: str | Path | None = None
    """Your SMPL body (.pkl or .npz), for weights trained with SMPL (default: the imported file).

    Weights that were not trained with SMPL use the free body that ships with the package.
    """
    regressors: str | Path | None = None
    """Folder with the body's J_regressor_*.npy files (default: the imported ones)."""
    refine: bool = True
    """Refine each body with its 2D keypoints, from two passes.

    More accurate, and slower. Without it the prediction is the network's own, of one pass.
    """
    rotated_detection: bool = True
    """Detect keypoints a second time, in a rotated crop, for people who lean or lie."""
    flip: bool = False
    """Average the predictions for each person and their mirror image, also without refining.

    Refining always starts from this average, but for fast.
    """
    pose_model: str | Path | None = None
    """Your own top-down 2D pose model (.onnx): RTMPose, ViTPose, TinyPose.

    Default: the one that ships. Not together with fast, and without rotated detection.
    A .toml file of the same name overrides its defaults: docs/guide/images.md.
    """
    person_model: str | Path | None = None
    """Your own person detector (.onnx): RTMDet, YOLOX.

    Default: the one that ships. A .toml file of the same name, as for pose_model. Not together with fast.
    """

    def __post_init__(self) -> None:
        if self.fast and not self.pose_model == self.person_model is None:
            own = "person_model" if self.pose_model is None else "pose_model"
            raise ConfigError("they exclude each other", where=f"fast and {own}", fix="Use one of them.")
        if self.threads < 1:
            raise ConfigError(f"threads={self.threads} must be at least 1", where="threads")

    @property
    def two_passes(self) -> bool:
        """Whether the network is asked of the mirror image, too."""
        return self.flip or (self.refine and not self.fast)

    def record(self) -> dict[str, object]:
        """All that predictions depend on; neither device nor threads. The keys are those of the stored files.

        Raises InputError, WeightsError for a file that cannot be read.
        """
        folder = weights_folder(str(self.weights))
        stored = [folder / name for name in ("config.json", "model.safetensors")]
        if missing := [path.name for path in stored if not os.path.isfile(path)]:
            raise WeightsError(f"no weights of that name (no {missing[0]})", where=str(self.weights))
        return {
            "weights": _file_record(str(self.weights), *stored),
            "body": _body_record(self.weights, self.body, self.regressors),
            "fast": self.fast,
            "refine": self.refine,
            "turn": self.rotated_detection,
            "flip": self.flip and (self.fast or not self.refine),  # which does it anyway
            "pose_model": user_model_record(self.pose_model),
            "person_model": user_model_record(self.person_model),
        }


@with_option_docs
@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Where an image's people and its focal length come from: the keyword arguments of `Predictor.__call__`."""

    keypoints: "str | Path | np.ndarray | Tensor | Sequence[Any] | None" = None
    """2D keypoints to use instead of the detector's: a file of any common tool, or a folder with one file per image.

    Also an array (P, J, 3) or (J, 3) of x, y in pixels of the image and confidence, or (P, J, 2) without confidence.
    J is 17 (COCO), 18, 25, 26, 30, 133 or 136; the order of any other number is named by format.
    """
    boxes: "str | Path | np.ndarray | Tensor | Sequence[Any] | None" = None
    """Boxes of the people; keypoints are detected inside them: a JSON file, or "x1,y1,x2,y2;..." in pixels.

    Also an array (P, 4). Together with keypoints each person gets the box that holds their joints.
    """
    focal: float | None = None
    """Focal length in pixels of the image (default: from EXIF, else the image's diagonal)."""
    fov: float | None = None
    """Horizontal field of view in degrees, instead of the focal length."""
    roll: float | None = None
    """How far upright things lean in the image, degrees clockwise (default: from its straight edges; videos: 0).

    People are detected and predicted upright, and turned back. Edges tell from 8 degrees on; not with fast, with
    keypoints or boxes of yours, or without rotated detection.
    """
    max_people: int = MAX_PEOPLE
    """Most people per image; those with the highest scores are kept."""
    max_pixels: int = MAX_PIXELS
    """Refuse images with more pixels."""
    format: str | None = None
    """Format or joint order of the keypoint file, where the file alone does not determine it.

    Also the joint order of an array: coco, body_25, halpe26, crowdpose, mpii, ...
    """
    keep_unposed: bool = False
    """Keep people in whose box the detector finds no keypoint: their bodies are guesses from the image alone.

    People of your own keypoints or boxes are always kept.
    """
    hypotheses: int = 1
    """Bodies per person: the prediction, and others that agree with what is visible."""
    corrections: "str | Path | Corrections | None" = None
    """Corrections by hand, from a JSON file: docs/guide/corrections.md."""

    def __post_init__(self) -> None:
        if not 1 <= self.hypotheses <= MOST_HYPOTHESES:
            raise ConfigError(
                f"hypotheses={self.hypotheses} must be 1 to {MOST_HYPOTHESES}", where="hypotheses"
            )
        if self.roll is not None and not abs(self.roll) <= MOST_ROLL:  # nor NaN
            raise ConfigError(f"roll={self.roll} must be -180 to 180", where="roll")
        if self.format is not None and self.keypoints is None:
            raise ConfigError("is the joint order of keypoints, and there are none", where="format")
        if isinstance(self.corrections, (str, Path)):
            object.__setattr__(self, "corrections", Corrections.read(self.corrections))
        for name in ("keypoints", "boxes"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, (str, Path)):
                object.__setattr__(self, name, _as_array(value, name))

    def record(self) -> dict[str, object]:
        """All that a prediction depends on besides image and model; the keys are those of the stored files.

        Raises InputError for a file that cannot be read.
        """
        keypoints, boxes = (cast("str | Path | np.ndarray | None", v) for v in (self.keypoints, self.boxes))
        if isinstance(boxes, (str, Path)) and not os.path.isfile(boxes):
            recorded_boxes: object = str(boxes)  # the boxes themselves, as text
        else:
            recorded_boxes = _input_record(boxes)
        return {
            "keypoints": _input_record(keypoints),
            "keypoint_format": self.format,
            "boxes": recorded_boxes,
            "focal": None if self.focal is None else float(self.focal),
            "fov": None if self.fov is None else float(self.fov),
            "roll": None if self.roll is None else float(self.roll),
            "max_people": int(self.max_people),
            "keep_unposed": bool(self.keep_unposed),
            "hypotheses": int(self.hypotheses),
        }

    def record_of(self, source: str, sha256: str) -> dict[str, object]:
        """`record` of one image: with its corrections, None without any. Raises InputError."""
        return self.record() | {"corrections": corrections_record(self.corrections_of(source, sha256))}

    def refuse_foreign_corrections(self, images: Iterable[Path]) -> None:
        """Raise InputError where there are corrections, and none is of these images."""
        if not isinstance(self.corrections, Corrections) or not self.corrections.entries:
            return
        paths = list(images)
        names, entries = {path.name for path in paths}, self.corrections.entries
        if any(Path(entry.source).name in names for entry in entries):
            return
        known = {entry.sha256 for entry in entries if entry.sha256}
        if not known or known.isdisjoint(map(file_sha256, paths)):
            raise InputError(
                f"has corrections of {Path(entries[0].source).name}, and of none of these images",
                where=self.corrections.where,
                fix="Give the corrected image.",
            )

    def corrections_of(self, source: str, sha256: str) -> "tuple[Correction, ...]":
        """Of one image. Raises InputError where they are of a file of that name with other content."""
        if self.corrections is None:
            return ()
        assert isinstance(self.corrections, Corrections)  # __post_init__ reads files
        return self.corrections.of(source, sha256)


class PredictKeywords(TypedDict, total=False):
    """The fields of PredictOptions, for functions that take them as `**options`."""

    keypoints: "str | Path | np.ndarray | Tensor | Sequence[Any] | None"
    boxes: "str | Path | np.ndarray | Tensor | Sequence[Any] | None"
    focal: float | None
    fov: float | None
    roll: float | None
    max_people: int
    max_pixels: int
    format: str | None
    keep_unposed: bool
    hypotheses: int
    corrections: "str | Path | Corrections | None"


def file_sha256(path: Path) -> str:
    """Hex digest of a regular file of any size; raises InputError."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


_FLAGS = {"turn": "--no-rotated-detection", "refine": "--no-refine", "weights": "--weights"}
"""Recorded option -> flag, where the flag is not its name with hyphens."""
_BEFORE = {"keep_unposed": True, "hypotheses": 1}
"""Recorded option -> its value in records that lack it, where that is not None: written before the option existed."""


def differences(recorded: RecordedOptions, wanted: RecordedOptions) -> list[str]:
    """How two records differ, in terms of command-line flags; empty where they are equal."""
    changes: list[str] = []
    for name in dict.fromkeys([*wanted, *recorded]):
        old, new = (record.get(name, _BEFORE.get(name)) for record in (recorded, wanted))
        if _content(old) == _content(new):
            continue
        flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
        if _FLAGS.get(name, "").startswith("--no-"):
            old, new = not old, not new
        was, now = _words(old), _words(new)
        changes.append(
            f"{flag} was {was}, is {now if now != was else 'a file of that name with other content'}"
        )
    return changes


def _as_array(value: object, name: str) -> "np.ndarray":
    """Keypoints or boxes as an array; raises InputError."""
    import numpy as np

    if isinstance(value, np.ndarray):
        return value
    try:
        if hasattr(value, "detach"):  # a tensor, on any device
            value = cast("Tensor", value).detach().cpu().numpy()
        array = np.asarray(value) if isinstance(value, (np.ndarray, list, tuple)) else None
    except (
        TypeError,
        ValueError,
        RuntimeError,
    ):  # lists of unequal lengths, bfloat16, tensors without storage
        array = None
    if array is None or array.dtype.kind not in "fiu":
        raise InputError(
            f"{type(value).__name__} is not read",
            where=name,
            fix="Pass a file's path or an array of numbers.",
        )
    return array


def _input_record(supplied: "str | Path | np.ndarray | None") -> object:
    if supplied is None:
        return None
    if isinstance(supplied, (str, Path)):
        path = Path(supplied)
        return _folder_record(path) if os.path.isdir(path) else _file_record(path.name, path)
    return {
        "file": "an array",
        "sha256": hashlib.sha256(str(supplied.shape).encode() + supplied.tobytes()).hexdigest(),
    }


def _file_record(name: str, *files: Path) -> dict[str, Any]:
    """One digest for all the files."""
    digests = [file_sha256(path) for path in files]
    together = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return {"file": name, "sha256": together}


def user_model_record(model: str | Path | None) -> object:
    """The model's file, together with the TOML file of the same name."""
    if model is None:
        return None
    path, settings = Path(model), settings_file(Path(model))
    return _file_record(path.name, path, *([settings] if os.path.isfile(settings) else []))


def settings_file(model: Path) -> Path:
    """The TOML file that belongs to a user's model: the same name, with the suffix .toml."""
    return Path(os.path.splitext(model)[0] + ".toml")


def _folder_record(path: Path) -> dict[str, Any]:
    """A folder with one file per image: their names and contents."""
    try:
        files = sorted(p for p in path.iterdir() if os.path.isfile(p))
    except OSError as error:
        raise InputError(f"cannot be read ({reason(error)})", where=str(path)) from None
    listed = "".join(f"{p.name!r} {file_sha256(p)}\n" for p in files)
    return {"file": path.name, "sha256": hashlib.sha256(listed.encode()).hexdigest()}


def _body_record(weights: str | Path, body: str | Path | None, regressors: str | Path | None) -> object:
    """The body's files: those that the user names, or the imported ones where the weights need them."""
    if body is None and not os.path.isdir(weights):
        return None  # shipped weights: the free body
    from dpmesh.body.resolve import find_regressors, needs_body

    if body is None and not needs_body(weights):
        return None
    path = Path(body) if body is not None else find_asset("smpl_neutral")
    if path is None:
        raise InputError("the weights need a body", where=str(weights), fix="Use --body FILE.")
    rows = find_regressors(None if regressors is None else Path(regressors))
    return _file_record(path.name, path, *(rows[name] for name in sorted(rows)))


def _content(value: object) -> object:
    """Of a file its content, not its name."""
    return value["sha256"] if isinstance(value, dict) and "sha256" in value else value


def _words(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict) and "file" in value:
        return str(value["file"])
    return (
        f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    )
