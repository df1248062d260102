"""The settings of each kind of training stage ([[stages]] of a config)."""

import math
from dataclasses import dataclass
from typing import Literal

from dpmesh.config import BackbonePart
from dpmesh.data.poses import HELD_OUT_SHARE, VALIDATION_CLIPS
from dpmesh.errors import ConfigError

Number = int | float


def in_range(where: str, **values: tuple[Number, Number, Number]) -> None:
    """Raise ConfigError for the first value that is not a number from its least to its greatest.

    values: name=(value, least, greatest).
    """
    for name, (value, least, greatest) in values.items():
        if not math.isfinite(value) or not least <= value <= greatest:
            raise ConfigError(f"{name}={value} is not between {least:g} and {greatest:g}", where=where)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The schedule that every kind of stage has."""

    name: str
    """Letters, digits and _; in the names of the stage's log and weights, and in `--set.NAME.SETTING`."""
    batch: int
    """People in one step, over all processes and all `accumulate` parts together. Paper, released code: 16."""
    learning_rate: float
    """Peak rate, above 0, after the warm-up. Paper, released code: 1e-4."""
    steps: int = 0
    """Optimiser steps. Exactly one of steps and epochs is above 0."""
    epochs: int = 0
    """Epochs: twice the larger of the 3D and the 2D group. Synthetic people have none. Released
    code: 20."""
    accumulate: int = 1
    """Parts into which a batch is cut for gradient accumulation; must divide `batch`."""
    backbone_lr_factor: float = 1.0
    """Factor on the learning rate for the image backbone's parameters."""
    warmup_steps: int = 200
    """Steps of the linear warm-up. The released code has none: 0."""
    schedule: Literal["cosine", "step"] = "cosine"
    """After the warm-up: "cosine" falls to a hundredth of the peak; "step" is constant and a tenth at the end (paper,
    released code)."""
    decay_steps: int = 5
    """Length of the stretch at a tenth of the rate under "step": the last epochs; the last steps where the length is
    in steps. Paper, released code: the last 5 epochs."""

    def __post_init__(self) -> None:
        where = f"stage {self.name}"
        if not self.name.isidentifier():
            raise ConfigError(f"{self.name!r} must be letters, digits and _", where="a stage's name")
        in_range(
            where,
            steps=(self.steps, 0, 10**9),
            epochs=(self.epochs, 0, 10**6),
            batch=(self.batch, 1, 10**6),
            accumulate=(self.accumulate, 1, 10**6),
            learning_rate=(self.learning_rate, 0, 1e6),
            backbone_lr_factor=(self.backbone_lr_factor, 0, 1e6),
            warmup_steps=(self.warmup_steps, 0, 10**9),
            decay_steps=(self.decay_steps, 0, 10**9),
        )
        if (self.steps > 0) == (self.epochs > 0):
            raise ConfigError("give either steps or epochs, above 0", where=where)
        if self.batch % self.accumulate:
            raise ConfigError(
                f"batch={self.batch} cannot be cut into accumulate={self.accumulate} parts", where=where
            )
        if self.learning_rate == 0:
            raise ConfigError("learning_rate must be above 0", where=where)


@dataclass(frozen=True, kw_only=True)
class PriorStage(Stage):
    """Train the model's pose prior on recorded poses: a VQ-VAE (train/objectives/vqvae.py) or a VAE like VPoser
    (train/objectives/vposer.py). Must be the first stage. The squared chordal distance of the rotations has weight 1.
    """

    kind: Literal["prior"] = "prior"
    joints_weight: float = 10.0
    """Weight of the joints' distance in metres."""
    commitment_weight: float = 0.25
    """Weight of the commitment loss (VQ-VAE)."""
    kl_weight: float = 0.005
    """Weight of the Kullback-Leibler divergence in nats (VPoser)."""
    p_unquantised: float = 0.1
    """Probability that a pose is decoded from its latents without quantisation, so that the decoder also learns points
    between the codes (VQ-VAE)."""
    noise: float = 0.06
    """Standard deviation of the noise on the recorded poses, radians per axis, 0 to π."""
    poses: str = ""
    """Pose file (tools/assets/build_poses.py); "" for the shipped poses."""
    held_out: tuple[str, ...] = VALIDATION_CLIPS
    """Prefixes of the names of the clips kept for validation. The default names clips of the shipped poses."""
    held_out_share: float = HELD_OUT_SHARE
    """Share of the clips kept for validation, by a hash of the name, in a file where no name has such a prefix
    (data/poses.py). 0: no validation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(
            f"stage {self.name}",
            joints_weight=(self.joints_weight, 0, 1e9),
            commitment_weight=(self.commitment_weight, 0, 1e9),
            kl_weight=(self.kl_weight, 0, 1e9),
            p_unquantised=(self.p_unquantised, 0, 1),
            noise=(self.noise, 0, math.pi),
        )


@dataclass(frozen=True, kw_only=True)
class PretrainStage(Stage):
    """Train the backbone with the denoising objective of Eq. 1-2, where it has no released weights
    (train/objectives/denoising.py)."""

    kind: Literal["pretrain"] = "pretrain"
    reconstruction_weight: float = 1.0
    """Weight of the crop's L1 reconstruction; of a model whose VAE encoder is trained."""
    latent_weight: float = 0.1
    """Weight of the term that holds the latent's mean square to 1; of a model whose VAE encoder is trained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(
            f"stage {self.name}",
            reconstruction_weight=(self.reconstruction_weight, 0, 1e9),
            latent_weight=(self.latent_weight, 0, 1e9),
        )


@dataclass(frozen=True, kw_only=True)
class KeypointStage(Stage):
    """Train prompt and regressor on keypoints alone, without images. Needs a model with a lifter (not in the paper)."""

    kind: Literal["keypoints"] = "keypoints"


@dataclass(frozen=True, kw_only=True)
class ImageStage(Stage):
    """Train all that the model trains, on images with noisy keypoints, without a teacher (Eq. 9 without L_NKR)."""

    kind: Literal["images"] = "images"
    p_drop_image: float = 0.0
    """Probability that a sample's fused map is zeroed, so that the keypoints alone suffice for a prediction."""
    p_shuffle_image: float = 0.0
    """Probability that a sample gets another sample's crop, for the same reason."""
    keypoint_batch: int = 0
    """Additional synthetic people without an image in each step, which keep the lifter trained."""
    frozen: tuple[BackbonePart, ...] = ()
    """Parts of the backbone that this stage does not train, besides those that the model's config never trains."""

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(
            f"stage {self.name}",
            p_drop_image=(self.p_drop_image, 0, 1),
            p_shuffle_image=(self.p_shuffle_image, 0, 1),
            keypoint_batch=(self.keypoint_batch, 0, 10**6),
        )


@dataclass(frozen=True, kw_only=True)
class TeacherStage(Stage):
    """Train all that the model trains, with the ground-truth keypoints as input (section 3.3)."""

    kind: Literal["teacher"] = "teacher"


@dataclass(frozen=True, kw_only=True)
class StudentStage(Stage):
    """Train all that the model trains on corrupted keypoints, its features held to those of a frozen teacher
    (Eq. 7-9, train/objectives/distillation.py)."""

    kind: Literal["student"] = "student"
    teacher: str = ""
    """Folder of the teacher's weights; "" for those that this stage starts from."""
    p_drop_joint: float = 0.2
    """Probability that an input joint is dropped, besides the keypoint noise. Released loaders: 0.2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(f"stage {self.name}", p_drop_joint=(self.p_drop_joint, 0, 1))


@dataclass(frozen=True, kw_only=True)
class UncertaintyStage(Stage):
    """Train the uncertainty head alone (train/objectives/uncertainty.py), then calibrate it on the validation people.
    Starts from weights with such a head, or from weights that lack it."""

    kind: Literal["uncertainty"] = "uncertainty"
    keypoint_batch: int = 0
    """Additional synthetic people without an image in each step."""
    hiding_weight: float = 1.0
    """Weight of the term `hiding`, which raises a joint's sigma when the joint is covered."""

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(
            f"stage {self.name}",
            keypoint_batch=(self.keypoint_batch, 0, 10**6),
            hiding_weight=(self.hiding_weight, 0, 1e9),
        )


AnyStage = (
    ImageStage | KeypointStage | PriorStage | PretrainStage | TeacherStage | StudentStage | UncertaintyStage
)
