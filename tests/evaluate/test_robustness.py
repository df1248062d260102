"""Corruptions are nested and change what they name; the benchmark compares models and draws its report."""

import base64
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpmesh.cli.main import main
from dpmesh.errors import ConfigError
from dpmesh.evaluate.interfaces import Persons
from dpmesh.evaluate.robustness import bench as run_module
from dpmesh.evaluate.robustness.bench import RobustnessConfig
from dpmesh.evaluate.robustness.corruptions import CORRUPTIONS, Corruption, cover
from dpmesh.evaluate.robustness.report import JSON, PAGE, labels
from dpmesh.skeletons import COCO17, JOINTS30

BY_NAME = {one.name: one for one in CORRUPTIONS}
SEEDS = np.arange(6, dtype=np.int64)
COCO = [i for i in COCO17.indices_in(JOINTS30) if i >= 0]


@pytest.fixture(scope="module")
def persons() -> Persons:
    rng = np.random.default_rng(0)
    visible = np.zeros((6, 30), np.float32)
    visible[:, COCO] = 1
    visible[5] = 0
    joints = rng.uniform(80, 176, (6, 30, 2)).astype(np.float32) * visible[..., None]
    return Persons(
        ids=tuple("abcdef"), sequences=("s",) * 6, crops=rng.integers(0, 256, (6, 256, 256, 3), np.uint8),
        joints=joints, visible=visible, focal_crop=np.full(6, 600, np.float32),
        focal_image=np.full(6, 600, np.float32), turn=np.tile(np.eye(3), (6, 1, 1)), truth_joints=np.zeros((6, 17, 3)),
        measured=np.ones((6, 17)), truth_vertices=None, truth_pelvis=None, joint_visible=np.ones((6, 17)),
    )  # fmt: skip


def ladder(persons: Persons, name: str) -> list[Persons]:
    one = BY_NAME[name]
    return [one.apply(persons, severity, SEEDS) for severity in one.severities]


@pytest.mark.parametrize("one", CORRUPTIONS, ids=lambda c: c.name)
def test_the_mildest_changes_nothing_and_all_are_repeatable(persons: Persons, one: Corruption) -> None:
    assert one.severities[0] == 0
    same, worst, again = (one.apply(persons, s, SEEDS) for s in (0.0, one.severities[-1], one.severities[-1]))
    assert np.array_equal(same.joints, persons.joints) and np.array_equal(same.visible, persons.visible)
    assert np.array_equal(same.crops, persons.crops)
    assert np.array_equal(worst.joints, again.joints) and np.array_equal(worst.crops, again.crops)
    changed = [
        not np.array_equal(getattr(worst, n), getattr(persons, n)) for n in ("joints", "visible", "crops")
    ]
    assert any(changed)
    last = one.apply(persons, one.severities[-1], SEEDS + 100)
    assert np.isfinite(last.joints).all() and last.crops.dtype == np.uint8
    first_only = [a[:1] for a in (persons.joints, persons.visible, persons.crops)]
    alone = one.apply(_first(persons), one.severities[-1], SEEDS[:1])
    assert len(first_only[0]) == 1 and np.array_equal(
        alone.joints[0], worst.joints[0]
    )  # whatever the rest of the batch


def _first(persons: Persons) -> Persons:
    rows = {n: (v[:1] if v is not None and not isinstance(v, dict) else v) for n, v in vars(persons).items()}
    return Persons(**rows)


def test_dropped_joints_are_nested(persons: Persons) -> None:
    steps = ladder(persons, "dropped")
    for milder, worse in pairwise(steps):
        assert (worse.visible <= milder.visible).all()
    shares = [step.visible[:5].sum() / persons.visible[:5].sum() for step in steps]
    assert np.abs(np.array(shares) - (1 - np.array(BY_NAME["dropped"].severities))).max() < 0.04


def test_jitter_grows_along_one_direction(persons: Persons) -> None:
    steps = [step.joints - persons.joints for step in ladder(persons, "jittered")]
    kept = persons.visible[:5] > 0
    mild, worse = steps[1][:5][kept], steps[2][:5][kept]
    assert np.allclose(worse, mild * 2, atol=1e-3) and 3 < mild.std() < 5


def test_sides_swap_in_pairs(persons: Persons) -> None:
    steps = ladder(persons, "sides")
    flip = np.array(JOINTS30.flip)
    assert np.array_equal(steps[-1].joints, persons.joints[:, flip])
    moved = [(step.joints != persons.joints).any(-1) for step in steps]
    for milder, worse in pairwise(moved):
        assert not (milder & ~worse).any()
    assert all(np.array_equal(one, one[:, flip]) for one in moved)  # both of a pair or none
    assert 0 < moved[1].sum() < moved[2].sum() < moved[3].sum()


def test_a_neighbours_joints_are_nested(persons: Persons) -> None:
    moved = [(step.joints != persons.joints).any(-1) for step in ladder(persons, "neighbour")]
    for milder, worse in pairwise(moved):
        assert not (milder & ~worse).any()
    assert moved[-1].sum() > moved[1].sum() > 0


def test_occluders_grow_and_take_the_keypoints_under_them(persons: Persons) -> None:
    steps = ladder(persons, "occluder")
    for milder, worse in pairwise(steps[1:]):
        grey = [(step.crops == 128).all(-1) for step in (milder, worse)]
        assert not (grey[0] & ~grey[1]).any() and (worse.visible <= milder.visible).all()
    assert abs((steps[2].crops[5] == 128).all(-1).mean() - 0.3**2) < 0.005
    box = np.tile([0.0, 0, 256, 128], (6, 1))
    half = cover(persons, box)
    assert (half.joints[half.visible > 0][:, 1] >= 128).all() and (half.crops[:, :128] == 128).all()


def test_the_window_moves_image_and_joints_alike(persons: Persons) -> None:
    blank = np.zeros_like(persons.crops)
    for i, (x, y) in enumerate(persons.joints[:, COCO[0]]):
        if i < 5:
            blank[i, round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4] = 255
    marked = Persons(**{**vars(persons), "crops": blank})
    for name in ("shift", "larger"):
        worse = BY_NAME[name].apply(marked, BY_NAME[name].severities[-1], SEEDS)
        for i in range(5):
            y, x = np.nonzero(worse.crops[i, ..., 0] > 100)
            if worse.visible[i, COCO[0]]:
                assert np.abs(worse.joints[i, COCO[0]] - [x.mean(), y.mean()]).max() < 1
        assert worse.focal_crop[0] == 600 * (0.5 if name == "larger" else 1)


def test_wrong_settings_are_refused() -> None:
    for wrong in ({"people": 0}, {"box": 0.0}, {"weights": ()}, {"only": ("nothing",)}):
        with pytest.raises(ConfigError):
            RobustnessConfig(**wrong)
    with pytest.raises(ConfigError):
        Corruption("x", "x", "x", (0.0, 2.0, 1.0), CORRUPTIONS[0].apply)


@pytest.mark.slow
def test_two_models_in_one_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "--weights",
        "embedded",
        "--weights",
        "embedded",
        "--people",
        "2",
        "--map-people",
        "2",
        "--grid",
        "2",
    )
    assert main(["bench", "robustness", "--out", str(tmp_path), *words, "--only", "dropped", "blur"]) == 0
    record = json.loads((tmp_path / JSON).read_text())
    assert labels(record) == ["embedded (1)", "embedded (2)"] and record["persons"]["measured"] == 2
    assert [one["name"] for one in record["corruptions"]] == ["dropped", "blur"]
    for one in record["corruptions"]:
        assert one["models"][0] == one["models"][1]  # one model twice sees the same
    dropped = [point["MPJPE"] for point in record["corruptions"][0]["models"][0]]
    blurred = [point["MPJPE"] for point in record["corruptions"][1]["models"][0]]
    assert dropped[0] == blurred[0] and dropped[-1] > dropped[0] + 30  # without keypoints it is worse
    values = np.array(record["map"]["models"][0])
    assert values.shape == (14, 2, 2) and np.abs(values).max() > 1
    page = (tmp_path / PAGE).read_text()
    images = [base64.b64decode(one) for one in re.findall(r"base64,([^']+)'", page)]
    assert len(images) == 3
    for i, one in enumerate(images):
        path = tmp_path / f"{i}.png"
        path.write_bytes(one)
        assert Image.open(path).size[0] > 500
    assert "keypoints dropped" in capsys.readouterr().out
    _same_again(tmp_path, capsys, [*words, "--only", "dropped", "blur"])


def _same_again(out: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """The same bench is kept; another, or a file that is not ours, is refused; nothing is measured for either."""
    before = (out / JSON).read_bytes()
    command = ["bench", "robustness", "--out", str(out)]
    assert main([*command, *words]) == 0
    assert "kept (--overwrite" in capsys.readouterr().out
    for more, message in (
        (["--people", "3"], "persons"),
        (["--grid", "3"], "grid"),
        (["--protocol", "synthocc@detector"], "protocol"),
        (["--only", "blur"], "corruptions"),
        (["--weights", "embedded"], "weights"),
    ):
        assert main([*command, *words, *more]) == 1
        assert f"made with other {message}" in capsys.readouterr().err
    record = json.loads(before)
    del record["made of"]
    for content, message in (
        (json.dumps(record), "an earlier version"),
        ("{}", "was not written by dpmesh bench"),
    ):
        (out / JSON).write_text(content)
        assert main([*command, *words]) == 1
        assert message in capsys.readouterr().err and (out / JSON).read_text() == content


def test_every_option_reaches_the_bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[RobustnessConfig] = []

    def stop(bench: RobustnessConfig) -> None:
        asked.append(bench)
        raise ConfigError("enough")

    monkeypatch.setattr(run_module, "run", stop)
    words = "--protocol s --data d --weights a --weights b --people 7 --map-people 3 --grid 4 --batch 5 --threads 2"
    more = "--device cpu --only blur jpeg"
    assert main(["bench", "robustness", "--out", str(tmp_path), *words.split(), *more.split()]) == 1
    assert asked == [
        RobustnessConfig(
            protocol="s", weights=("a", "b"), data=Path("d"), people=7, map_people=3, grid=4, batch=5, device="cpu",
            threads=2, only=("blur", "jpeg"),
        )
    ]  # fmt: skip


def test_the_map_covers_the_recorded_number_of_persons(monkeypatch: pytest.MonkeyPatch) -> None:
    slid: list[list[int]] = []

    def slide(evaluation: object, indices: list[int], persons: Persons, *rest: object) -> np.ndarray:
        assert len(persons.ids) == len(indices)
        slid.append(list(indices))
        return np.zeros((len(indices), 2, 2, 14))

    monkeypatch.setattr(run_module, "slide_box", slide)
    record = run_module.run(
        RobustnessConfig(people=5, batch=3, map_people=4, grid=2, only=("blur",)), say=lambda _: None
    )
    assert slid == [[0, 1, 2], [3]] and record["persons"]["map"] == 4 and record["persons"]["measured"] == 5
