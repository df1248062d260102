"""The protocols of the paper's Tables 1-4, each in the editions that differ, and pose2sim (not of the paper).
docs/guide/evaluation.md explains them.

Sources: the paper (§4), the released evaluation code, and the papers that defined the subsets: 3DPW-OC (Zhang et al.,
CVPR 2020), 3DPW-PC (Sun et al., ICCV 2021), 3DPW-Crowd (Choi et al., CVPR 2022), Panoptic (Jiang et al., CVPR 2020).
"""

from dataclasses import replace

from dpmesh.data.datasets.threedpw import CROWD_SEQUENCES, OC_FAMILIES, PC_FRAMES
from dpmesh.evaluate.protocol import (
    CropRule,
    KeypointRule,
    Measure,
    MeasureFromHips,
    Protocol,
    Selection,
    SelectionWithout,
    Truth,
    WholeImage,
)
from dpmesh.skeletons import H36M17

_OPENPOSE = KeypointRule(source="openpose")
_GENDERED = Truth(gender="annotated")
_LEAKS = "as run: true joints are regressed from the mesh at its distance, not at the origin"

_ALL_SPLITS = ("train", "validation", "test")


def _as_run(paper: Protocol, **changed: object) -> Protocol:
    """The same protocol as in the released code, which poses every body at its distance."""
    truth = replace(paper.truth, placed="camera")
    return replace(paper, edition="as-run", truth=truth, notes=(*paper.notes, _LEAKS), **changed)  # pyright: ignore[reportArgumentType]


def _3dpw(name: str, title: str, persons: int, selection: Selection, keypoints: KeypointRule) -> Protocol:
    return Protocol(
        name=name, title=title, persons=persons, selection=selection, keypoints=keypoints, truth=_GENDERED
    )


def _3dpw_protocols() -> list[Protocol]:
    test = _3dpw(
        "3dpw",
        "3DPW test",
        35_515,
        Selection(dataset="3dpw", splits=("test",), rule="posed and inside"),
        _OPENPOSE,
    )
    occluded = _3dpw(
        "3dpw-oc",
        "3DPW-OC",
        20_243,
        Selection(dataset="3dpw-oc", splits=_ALL_SPLITS, families=OC_FAMILIES, rule="posed with keypoints"),
        _OPENPOSE,
    )
    pairs = _3dpw(
        "3dpw-pc",
        "3DPW-PC",
        2_218,
        Selection(dataset="3dpw-pc", splits=_ALL_SPLITS, frames=PC_FRAMES, rule="posed with keypoints"),
        _OPENPOSE,
    )
    crowd = _3dpw(
        "3dpw-crowd",
        "3DPW-Crowd",
        1_923,
        Selection(
            dataset="3dpw-crowd",
            splits=("validation",),
            sequences=CROWD_SEQUENCES,
            rule="posed and inside",
        ),
        KeypointRule(source="hhrnet"),
    )
    crowd_as_run = _as_run(crowd, keypoints=_OPENPOSE)
    reason = "as run: OpenPose's keypoints, because a global flag of the last data set wins"
    return [
        test, _as_run(test), occluded, _as_run(occluded), pairs, _as_run(pairs), crowd,
        replace(crowd_as_run, notes=(*crowd_as_run.notes, reason)),
    ]  # fmt: skip


def _validation_protocols() -> list[Protocol]:
    """For validation during training (train/validate.py): without the sequences of the benchmarks, so that no weights
    are selected on test data."""
    paper = Protocol(
        name="3dpw-validation",
        title="3DPW validation",
        selection=SelectionWithout(
            dataset="3dpw-validation",
            splits=("validation",),
            rule="posed and inside",
            left_out=tuple(sorted({*CROWD_SEQUENCES, *(name for name, *_ in PC_FRAMES)})),
            left_out_families=OC_FAMILIES,
        ),
        keypoints=_OPENPOSE,
        truth=_GENDERED,
        notes=("not of the paper: without the sequences that 3DPW-OC, -PC and -Crowd are made of",),
    )
    annotated = replace(
        paper,
        edition="annotated",
        keypoints=KeypointRule(source="annotated"),
        notes=(
            *paper.notes,
            "the ground-truth 2D joints are the input, as of a teacher: easier than detected ones",
        ),
    )
    return [paper, annotated]


def _3doh_protocols() -> list[Protocol]:
    paper = Protocol(
        name="3doh",
        title="3DOH",
        persons=1_290,
        selection=Selection(dataset="3doh", splits=("test",)),
        keypoints=KeypointRule(source="hrnet"),
        truth=Truth(gender="neutral"),
    )
    corners = CropRule(fallback="annotated corners taken for x y w h")
    shipped = replace(
        paper,
        edition="detector",
        keypoints=KeypointRule(source="detector"),
        notes=("HRNet's keypoints are not public: the shipped detector is asked in the annotated box",),
    )
    return [paper, _as_run(paper, crop=corners), shipped]


def _panoptic_protocols() -> list[Protocol]:
    rows = tuple(range(17))
    protocols: list[Protocol] = []
    for scene, sequence in (
        ("haggling", "160422_haggling1"),
        ("mafia", "160422_mafia2"),
        ("ultimatum", "160422_ultimatum1"),
        ("pizza", "160906_pizza1"),
    ):
        paper = Protocol(
            name=f"panoptic-{scene}",
            title=f"CMU-Panoptic {scene}",
            selection=Selection(dataset="panoptic", sequences=(sequence,)),
            keypoints=KeypointRule(source="detector"),
            truth=Truth(gender="none"),
            measure=Measure(metrics=("MPJPE",), rows=rows, unmeasured_joints="as zero"),
            notes=("the paper does not say whose 2D keypoints it used: here the shipped detector's",),
        )
        annotated = replace(
            paper,
            edition="annotated",
            keypoints=KeypointRule(source="annotated"),
            notes=("the true 2D joints are given: easier than the published task",),
        )
        protocols += [paper, annotated]
    return protocols


_LIMBS = tuple(
    H36M17.index(f"{s}_{j}") for j in ("Hip", "Knee", "Ankle", "Shoulder", "Elbow", "Wrist") for s in "LR"
)
_TUNING = (("cam01", 0, 25), ("cam01", 50, 75), ("cam04", 0, 25), ("cam04", 50, 75))
"""Half of the frames of two of the four cameras; the rest is what is reported."""
_REPORT = (("cam01", 25, 50), ("cam01", 75, 100), ("cam02", 0, 100), ("cam03", 0, 100), ("cam04", 25, 50),
           ("cam04", 75, 100))  # fmt: skip


def _pose2sim_protocols() -> list[Protocol]:
    protocols: list[Protocol] = []
    for dataset, title in (("pose2sim", "Pose2Sim"), ("pose2sim-occluded", "Pose2Sim, occluded")):
        for suffix, words, frames in (("", "", _REPORT), ("-tuning", ", for tuning", _TUNING)):
            protocols.append(
                Protocol(
                    name=dataset + suffix,
                    version=2,  # 1: crops of 1.25 × the box, cameras' roll ignored
                    title=title + words,
                    selection=Selection(dataset=dataset, frames=frames, rule="measured"),
                    keypoints=KeypointRule(source="detector, whole image", threshold=0.2),
                    crop=WholeImage(),
                    focal="given",
                    truth=Truth(gender="none"),
                    measure=MeasureFromHips(metrics=("MPJPE", "PA-MPJPE", "lateral", "depth"), rows=_LIMBS),
                    matching="nearest keypoints",
                    notes=(
                        "one man; the truth is triangulated from 2D keypoints, whose hips and shoulders are not SMPL's",
                    ),
                )
            )
    return protocols


def standard_protocols() -> list[Protocol]:
    """All protocols of data sets on disk."""
    return [
        *_3dpw_protocols(), *_validation_protocols(), *_3doh_protocols(), *_panoptic_protocols(),
        *_pose2sim_protocols(),
    ]  # fmt: skip
