"""What each stage of a training may be told. Values only: what they do stands in tasks.py and the files it names."""

import math
from dataclasses import dataclass
from typing import Literal

from dpmesh.config import BackbonePart
from dpmesh.data.poses import HELD_OUT_SHARE, VALIDATION_CLIPS
from dpmesh.errors import ConfigError

Number = int | float


def in_range(where: str, **values: tuple[Number, Number, Number]) -> None:
    """values: name=(value, least, greatest). Raises ConfigError for the first that is no number from least to
    greatest."""
    for name, (value, least, greatest) in values.items():
        if not math.isfinite(value) or not least <= value <= greatest:
            raise ConfigError(f"{name}={value} is not between {least:g} and {greatest:g}", where=where)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stretch of training, of any kind.

    name: of its log and weights. steps, or epochs: how long; an epoch is twice the larger of the 3D and the 2D group
    (datasets.md §4.6), and synthetic people have none.
    batch: people in one step, over all processes and all `accumulate` parts together.
    learning_rate: after a linear warm-up (steps) it falls along a cosine to a hundredth, or ("step") stays and is a
    tenth for the last `decay_steps` epochs (steps where the length is given in steps). backbone_lr_factor: a factor on it for the
    image backbone.
    """

    name: str
    batch: int
    learning_rate: float
    steps: int = 0
    epochs: int = 0
    accumulate: int = 1
    backbone_lr_factor: float = 1.0
    warmup_steps: int = 200
    schedule: Literal["cosine", "step"] = "cosine"
    decay_steps: int = 5

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
class Prior(Stage):
    """The pose prior of the model on recorded poses: a VQ-VAE (train/objectives/vqvae.py) or one like VPoser
    (train/objectives/vposer.py). Comes before every stage that uses it.

    Factors: metres of the joints, commitment (VQ-VAE), Kullback-Leibler distance in nats (VPoser); the squared chordal
    distance of the rotations has 1.
    p_unquantised: (VQ-VAE) share of the poses that are decoded from latents that were not quantised, so that the decoder also
    knows what lies between the codes. noise: radians per axis on the recorded poses. poses: another pose file.
    held_out: clips that validation looks at and training leaves out, by how their names begin; the default names the
    shipped ones. held_out_share: of a file in which no name begins so, this share of the clips, by a hash of the name
    (data/poses.py); 0 for none, and then nothing is validated.
    """

    kind: Literal["prior"] = "prior"
    joints_weight: float = 10.0
    commitment_weight: float = 0.25
    kl_weight: float = 0.005
    p_unquantised: float = 0.1
    noise: float = 0.06
    poses: str = ""
    held_out: tuple[str, ...] = VALIDATION_CLIPS
    held_out_share: float = HELD_OUT_SHARE

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
class Pretrain(Stage):
    """The denoising objective of Eq. 1-2 for a backbone without released weights (train/objectives/denoising.py).

    reconstruction_weight, latent_weight: factors of what teaches a VAE encoder that is itself trained.
    """

    kind: Literal["pretrain"] = "pretrain"
    reconstruction_weight: float = 1.0
    latent_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(
            f"stage {self.name}",
            reconstruction_weight=(self.reconstruction_weight, 0, 1e9),
            latent_weight=(self.latent_weight, 0, 1e9),
        )


@dataclass(frozen=True, kw_only=True)
class Keypoints(Stage):
    """Prompt and regressor on keypoints alone: no picture is made or read. Needs a lifter (not in the paper)."""

    kind: Literal["keypoints"] = "keypoints"


@dataclass(frozen=True, kw_only=True)
class Images(Stage):
    """Everything, on pictures with noisy keypoints, without a teacher.

    p_drop_image, p_shuffle_image: shares of samples whose fused map is zeroed, or whose crop is somebody else's, so that
    the keypoints alone keep carrying an answer.
    keypoint_batch: synthetic people without a picture in each step besides, so that the lifter forgets nothing.
    frozen: parts of the backbone that this stage leaves as they are, besides those that the model's config never
    trains.
    """

    kind: Literal["images"] = "images"
    p_drop_image: float = 0.0
    p_shuffle_image: float = 0.0
    keypoint_batch: int = 0
    frozen: tuple[BackbonePart, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(
            f"stage {self.name}",
            p_drop_image=(self.p_drop_image, 0, 1),
            p_shuffle_image=(self.p_shuffle_image, 0, 1),
            keypoint_batch=(self.keypoint_batch, 0, 10**6),
        )


@dataclass(frozen=True, kw_only=True)
class Teacher(Stage):
    """Everything, told where the joints truly are (section 3.3)."""

    kind: Literal["teacher"] = "teacher"


@dataclass(frozen=True, kw_only=True)
class Student(Stage):
    """Everything, on corrupted keypoints, its features held to those of a locked teacher (Eq. 7-9,
    train/objectives/distillation.py).

    teacher: its weights' folder; without, those that this stage begins with.
    p_drop_joint: share of the given joints that are left out besides (0.2 in the released loaders).
    """

    kind: Literal["student"] = "student"
    teacher: str = ""
    p_drop_joint: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(f"stage {self.name}", p_drop_joint=(self.p_drop_joint, 0, 1))


@dataclass(frozen=True, kw_only=True)
class Uncertainty(Stage):
    """Nothing but what tells how sure the answer is (regressor/uncertainty.py, train/objectives/uncertainty.py); at the
    end it is calibrated on the validation people. Begins with weights that have such a part, or with ones that lack it.

    keypoint_batch: synthetic people without a picture in each step besides.
    hiding_weight: factor of the term that wants a joint's sigma to rise when the joint is hidden.
    """

    kind: Literal["uncertainty"] = "uncertainty"
    keypoint_batch: int = 0
    hiding_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(
            f"stage {self.name}",
            keypoint_batch=(self.keypoint_batch, 0, 10**6),
            hiding_weight=(self.hiding_weight, 0, 1e9),
        )


AnyStage = Images | Keypoints | Prior | Pretrain | Teacher | Student | Uncertainty
