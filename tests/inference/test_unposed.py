"""People without a keypoint: dropped and counted where the detector proposes them, kept where the user does."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeModel

from dpmesh.cli.main import main
from dpmesh.inference.detections import Detection, DetectionResult, merge_detections
from dpmesh.inference.options import PredictOptions, differences
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.scene import Scene

IMAGE = np.full((100, 200, 3), 90, np.uint8)


class Ghosts:
    """The best box has no keypoint, the second only ones below the threshold, the third none inside its crop."""

    name = "ghosts"

    def __call__(self, image: np.ndarray, max_people: int = 20) -> DetectionResult:
        boxes = np.asarray([[0, 0, 30, 60], [40, 0, 70, 60], [80, 0, 110, 60], [120, 0, 150, 60]], np.float32)
        return merge_detections(
            self.keypoints_in_boxes(image, boxes, np.asarray([0.9, 0.8, 0.7, 0.6], np.float32)), max_people
        )

    def keypoints_in_boxes(
        self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray | None = None
    ) -> tuple[Detection, ...]:
        people: list[Detection] = []
        for i, box in enumerate(boxes):
            points = np.tile(
                np.asarray([*(box[:2] + box[2:]) / 2, (0, 0.19, 0.9, 0.9)[i]], np.float32), (17, 1)
            )
            points[:, 0] += 90 if i == 2 else 0
            people.append(Detection(box, points, 1.0 if scores is None else float(scores[i])))
        return tuple(people)


@pytest.fixture
def ghosts() -> Predictor:
    return Predictor(FakeModel(), Ghosts(), "fake")  # pyright: ignore[reportArgumentType]


def scores(scene: Scene) -> list[float]:
    return [round(person.score, 1) for person in scene.people]


def test_no_keypoint_no_person(ghosts: Predictor) -> None:
    scene = ghosts(IMAGE)
    assert scores(scene) == [0.6]
    assert scene.fallbacks == {"unposed_dropped": 3}
    assert scene.options["keep_unposed"] is False and scene.options["detector"] == "ghosts"


def test_ghosts_take_no_place_of_a_person(ghosts: Predictor) -> None:
    assert scores(ghosts(IMAGE, max_people=1)) == [0.6]


def test_keep_unposed_brings_them_back(ghosts: Predictor) -> None:
    scene = ghosts(IMAGE, keep_unposed=True)
    assert scores(scene) == [0.9, 0.8, 0.7, 0.6]
    assert scene.fallbacks == {"no_keypoints": 3, "unposed": 1} and scene.options["keep_unposed"] is True
    limited = ghosts(IMAGE, keep_unposed=True, max_people=2)
    assert scores(limited) == [0.9, 0.8] and limited.fallbacks["dropped"] == 2


def test_the_users_boxes_are_kept(ghosts: Predictor) -> None:
    """The user has asked for them."""
    scene = ghosts(IMAGE, boxes=np.array([[0, 0, 30, 60]]))
    assert len(scene.people) == 1
    assert scene.fallbacks == {"no_keypoints": 1, "unposed": 1}


def test_results_from_before_the_option_kept_them() -> None:
    new = PredictOptions().record()
    old = {name: value for name, value in new.items() if name != "keep_unposed"}
    assert differences(old, new) == ["--keep-unposed was on, is off"]
    assert differences(old, PredictOptions(keep_unposed=True).record()) == []


def test_the_command_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ghosts: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    load: Callable[..., Predictor] = lambda **_: ghosts  # noqa: E731
    monkeypatch.setattr(Predictor, "from_pretrained", load)
    photo, out = str(Path(__file__).parents[2] / "examples/park.jpg"), str(tmp_path / "o")
    words = ["predict", photo, "--out", out, "--save", "json"]
    assert main(words) == 0
    assert "1 person (3 boxes without keypoints dropped" in capsys.readouterr().out
    assert main([*words, "--keep-unposed", "--overwrite"]) == 0
    assert (
        "4 people (3 people without keypoints in the crop; 1 box without keypoints" in capsys.readouterr().out
    )
