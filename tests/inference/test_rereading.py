"""Keypoints detected again after a far move: which reading is taken, and when none is."""

from collections.abc import Callable

import numpy as np
import pytest

from dpmesh import Predictor, Scene
from dpmesh.inference.corrections import Correction
from dpmesh.inference.detections import Detection, DetectionResult
from dpmesh.inference.rereading import ANOTHER, SWAPPED
from dpmesh.skeletons import COCO17

Build = Callable[..., Predictor]
PHOTO = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
LEFT, RIGHT = COCO17.index("L_Wrist"), COCO17.index("R_Wrist")
FLIP = list(COCO17.flip)


class SecondLook:
    """In every third box it detects the other pose."""

    def __init__(self, pose: np.ndarray, other: np.ndarray) -> None:
        self.pose, self.other, self.calls = pose, other, 0

    def __call__(self, image: np.ndarray, max_people: int = 20) -> DetectionResult:
        raise AssertionError("the people are known")

    def keypoints_in_boxes(
        self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray | None = None
    ) -> tuple[Detection, ...]:
        self.calls += 1
        poses = [self.pose if i % 3 else self.other for i in range(len(boxes))]
        return tuple(Detection(box, pose, 1.0) for box, pose in zip(boxes, poses, strict=True))


@pytest.fixture
def scene(predictor: Build) -> Scene:
    return predictor()(PHOTO)


def corrected(predictor: Predictor, scene: Scene, detector: SecondLook, *steps: Correction) -> Scene:
    predictor.detector = detector
    return predictor.correct(scene, steps)


def move(joint: str, at: np.ndarray) -> Correction:
    return Correction("move", 0, joint, pixel=(float(at[0]), float(at[1])))


def poses(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The first reading, and one that lies 30 px to the right of it."""
    first = scene[0].keypoints2d.copy()
    first[:, 2] = 0.7
    return first, first + np.array([30, 0, 0.1], np.float32)


def test_the_reading_that_agrees_with_a_moved_joint(predictor: Build, scene: Scene) -> None:
    first, right = poses(scene)
    detector, build = SecondLook(first, right), predictor()
    hide = Correction("hide", 0, "Nose")
    result = corrected(build, scene, detector, hide, move("L_Wrist", right[LEFT]))
    assert result[0].corrected == ("hide Nose", "move L_Wrist", ANOTHER)
    keypoints = result[0].keypoints2d
    np.testing.assert_allclose(keypoints[LEFT], [*right[LEFT, :2], 1])
    np.testing.assert_allclose(keypoints[5:9], right[5:9], atol=1e-4)
    assert keypoints[0, 2] == 0  # hidden by the user
    assert result[1] is scene[1]
    again = corrected(build, scene, detector, hide, move("L_Wrist", right[LEFT]), move("Nose", right[0]))
    assert (
        again[0].corrected[-1] == ANOTHER and detector.calls == 1
    )  # one look a person, whatever is corrected


def test_another_persons_joints_are_not_taken(predictor: Build, scene: Scene) -> None:
    first, _ = poses(scene)
    theirs = scene[1].keypoints2d
    result = corrected(
        predictor(),
        scene,
        SecondLook(first, theirs),
        move("L_Wrist", theirs[LEFT]),
        move("R_Knee", theirs[14]),
    )
    assert np.linalg.norm(result[0].keypoints2d[5:9, :2] - theirs[5:9, :2], axis=1).min() > 10


def test_exchanged_sides(predictor: Build, scene: Scene) -> None:
    first, _ = poses(scene)
    far = first.copy()
    far[:, 0] += 25 * np.sign(np.arange(17) % 2 - 0.5)  # the sides are apart
    exchanged = SecondLook(far, far)
    moves = [move(COCO17.joints[i], far[FLIP[i]]) for i in (LEFT, RIGHT, 13)]
    result = corrected(predictor(), scene, exchanged, *moves)
    assert result[0].corrected[-1] in (ANOTHER, SWAPPED)
    np.testing.assert_allclose(result[0].keypoints2d[14, :2], far[13, :2], atol=1e-4)


def test_what_the_user_has_said_stays(predictor: Build, scene: Scene) -> None:
    _, right = poses(scene)
    detector = SecondLook(right, right)
    body = scene[0].joints2d[scene.joint_names.index("L_Wrist")]
    near = corrected(predictor(), scene, detector, move("L_Wrist", body + 1))
    assert near[0].corrected == ("move L_Wrist",)
    swap = Correction("swap", 0, part="arms")
    told = corrected(predictor(), scene, detector, move("L_Wrist", right[LEFT]), swap)
    assert ANOTHER not in told[0].corrected
    no_keypoint = corrected(predictor(), scene, detector, move("L_Toe", right[LEFT]))
    assert no_keypoint[0].corrected == ("move L_Toe",)
    assert detector.calls == 1
