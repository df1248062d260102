"""pose2sim: a man in whole images, matched, with the parts of his error; on a miniature, with known detections."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dpmesh.cli.main import main
from dpmesh.errors import InputError
from dpmesh.evaluate.evaluation import EvaluationConfig, use_models
from dpmesh.evaluate.protocol import MISSED
from dpmesh.evaluate.registry import entry, open_source
from dpmesh.evaluate.report import figures
from dpmesh.evaluate.runner import evaluate
from dpmesh.evaluate.whole_images import WholeImageSource
from dpmesh.inference import preprocess
from dpmesh.inference.detections import Detection, DetectionResult
from dpmesh.inference.preprocess import EXPAND, MIN_DETECTED
from dpmesh.skeletons import COCO17, H36M17
from tools.fixtures.evaluation_twin_people import World
from tools.fixtures.evaluation_twin_pose2sim import write_pose2sim

TUNING = ["cam01/000", "cam01/052", "cam04/000", "cam04/052"]
REPORT = ["cam02/000", "cam02/052", "cam03/000", "cam03/052"]
BODY = [COCO17.index(name) for name in COCO17.joints[5:]]


class Known:
    """A detector that knows the people: keypoints of each record's joints, moved by `moves` px, one person each."""

    def __init__(self, source: WholeImageSource, moves: list[float]) -> None:
        self.records, self.moves = source.records, moves
        self.images = [np.asarray(preprocess.read_image(r.image).rgb) for r in source.records]

    def __call__(self, image: np.ndarray, max_people: int = 20) -> DetectionResult:
        record = next(
            r for r, one in zip(self.records, self.images, strict=True) if np.array_equal(one, image)
        )
        people = []
        for move in self.moves:
            points = np.zeros((17, 3), np.float32)
            for index in BODY:
                solid = record.truth.joints[H36M17.index(COCO17.joints[index]), :3] @ record.K.T
                points[index] = solid[0] / solid[2] + move, solid[1] / solid[2], 0.9
            box = (record.box + np.array([move, 0, move, 0])).astype(np.float32)
            people.append(Detection(box, points, 0.9 - abs(move) / 1000))
        return DetectionResult(tuple(people))

    def keypoints_in_boxes(
        self, image: np.ndarray, boxes: np.ndarray, scores: object = None
    ) -> tuple[Detection, ...]:
        raise AssertionError("no box is given")


@pytest.fixture(scope="module")
def men(twin, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    root = tmp_path_factory.mktemp("pose2sim")
    world = World.__new__(World)
    world.__dict__.update(twin.world.__dict__, rng=np.random.default_rng(5))
    return root, write_pose2sim(root, world)


@pytest.fixture
def run(men: tuple[Path, dict[str, np.ndarray]], opened: Callable) -> Callable:
    """run(name, moves, change): rows of a model that predicts change(vertices)."""

    def make(name: str, moves: list[float], change: Callable = lambda mesh: mesh):
        root, truth = men
        evaluation = opened(name, lambda one: (change(truth[one]), np.zeros(3)), root)
        source = evaluation.source.source
        source.detector = Known(source, moves)
        return evaluation, evaluate(evaluation, range(evaluation.count))

    return make


def test_splits_do_not_meet(men: tuple[Path, dict[str, np.ndarray]]) -> None:
    for kind in ("pose2sim", "pose2sim-occluded"):
        for suffix, wanted in (("", REPORT), ("-tuning", TUNING)):
            source = open_source(kind + suffix, men[0])
            assert isinstance(source, WholeImageSource)
            assert [record.id for record in source.records] == wanted
            assert {r.image.parent.parent.name for r in source.records} == {
                "occluded" if "occluded" in kind else "clean"
            }
            assert sum(source.census.left_out.values()) == (4 if not suffix else 0)
    frames = [entry("pose2sim" + suffix).protocol.selection.frames for suffix in ("", "-tuning")]
    spans = sorted(span for half in frames for span in half)
    assert sum(end - first for _, first, end in spans) == 400
    assert all(a[0] != b[0] or a[2] <= b[1] for a, b in pairwise(spans))


@pytest.mark.parametrize("name", ["pose2sim", "pose2sim-occluded-tuning"])
def test_the_true_mesh_scores_zero_beside_another_person(run: Callable, name: str) -> None:
    """World to camera, the crop's turn, the match: the other person is detected with a higher score."""
    evaluation, rows = run(name, [70.0, 0.0])
    assert evaluation.count == 4 and not rows.failed.any()
    for values in (rows.mpjpe, rows.pa_mpjpe, rows.lateral, rows.depth):
        assert values.max() < 1.0  # the regressor's rows do not sum to 1


def test_parts_of_the_error(run: Callable, men: tuple[Path, dict[str, np.ndarray]]) -> None:
    """A body stretched along the line to the root errs in depth only; one turned about that line, across only."""

    def stretched(mesh: np.ndarray) -> np.ndarray:
        line = middle(mesh) / np.linalg.norm(middle(mesh))
        along = (mesh - middle(mesh)) @ line
        return mesh + 0.5 * along[:, None] * line

    def middle(mesh: np.ndarray) -> np.ndarray:
        return (rows_of @ mesh)[[1, 4]].mean(0)

    evaluation, _ = run("pose2sim", [0.0])
    rows_of = evaluation.model.arrays.regressors["h36m17"]
    rows_of = rows_of / rows_of.sum(1, keepdims=True)
    _, rows = run("pose2sim", [0.0], stretched)
    assert rows.lateral.max() < 1.0 < 20 < rows.depth.min()
    np.testing.assert_allclose(rows.depth, rows.mpjpe, atol=0.5)
    _, rows = run("pose2sim", [0.0], lambda mesh: mesh + 3 * (mesh - middle(mesh)))
    assert (rows.pa_mpjpe < 0.5).all() and (rows.lateral > 100).all() and (rows.depth > 50).all()


@pytest.mark.parametrize("moves", [[70.0], []])
def test_a_miss_is_counted(run: Callable, moves: list[float]) -> None:
    evaluation, rows = run("pose2sim", moves)
    assert rows.failed.all() and rows.fallbacks[MISSED] == 4 and not rows.unusable.any()
    assert np.isnan(rows.mpjpe).all() and np.isnan(rows.depth).all()
    numbers = figures(evaluation.protocol.measure, rows)
    assert numbers["by_sequence"]["cam02"] | {"persons": 2, "failures": 2} == numbers["by_sequence"]["cam02"]
    assert numbers["pck"]["MPJPE"]["shares"][-1] == 0


def test_inputs_are_those_of_predict(run: Callable) -> None:
    """The crop, the confidence and the focal length of `dpmesh predict --focal`."""
    evaluation, _ = run("pose2sim", [0.0])
    source = evaluation.source.source
    rule, keypoints = evaluation.protocol.crop, evaluation.protocol.keypoints
    assert (rule.box, keypoints.threshold) == (EXPAND, MIN_DETECTED)
    persons, record = source.persons([1]), source.records[1]
    prepared = preprocess.prepare_image(
        source.detector, record.image, preprocess.PredictOptions(focal=float(record.K[0, 0]))
    )
    inputs = preprocess.model_inputs(prepared.persons, "crop", persons_device())
    np.testing.assert_array_equal(
        persons.crops[0], (inputs.crop[0].permute(1, 2, 0) * 255).round().byte().numpy()
    )
    np.testing.assert_array_equal(persons.joints, inputs.joints.numpy())
    np.testing.assert_array_equal(persons.visible, inputs.visible.numpy())
    np.testing.assert_array_equal(persons.focal_crop, inputs.focal.numpy())


def persons_device():
    import torch

    return torch.device("cpu")


def test_mistakes(
    men: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"pose2sim\.json.*build_pose2sim"):
        open_source("pose2sim", tmp_path)
    content = json.loads((men[0] / "Pose2Sim" / "pose2sim.json").read_text())
    content["joints"] = content["joints"][:2]
    (tmp_path / "pose2sim.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="joints"):
        open_source("pose2sim", tmp_path)
    words = [
        "eval",
        "run",
        "synthocc",
        "--out",
        str(tmp_path / "o"),
        "--pose-model",
        str(tmp_path / "m.onnx"),
    ]
    assert main(words) == 1 and "not detected in whole images" in capsys.readouterr().err
    config = EvaluationConfig(protocol="pose2sim", out=tmp_path)
    source = open_source("pose2sim", men[0])
    assert isinstance(source, WholeImageSource)
    before = source.detector
    use_models(source, config)
    assert source.detector is before
