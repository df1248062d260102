"""Two processes, sharing or sharding the model, give the gradients of one with the joint batch."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


def run(child: ModuleType, verb: str, out: Path, stages: list[dict[str, Any]], **more: Any) -> None:
    words = [sys.executable, child.__file__, verb, str(out), json.dumps({"stages": stages, **more})]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def joint(
    child: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, dict, dict, dict]]:
    """For a student with NKR, and for what the embedded model has besides: folder, stage, settings, gradients."""
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("joint") / "run"
    teacher = child.make_weights(out, "tiny", 2)
    cases = {
        "student": (
            child.stage("student", teacher=teacher, p_drop_joint=0.3),
            {"model": "tiny", "start": child.make_weights(out, "tiny", 1), "losses": {"automatic": True}},
        ),
        "images": (
            child.stage("images", p_shuffle_image=0.5, p_drop_image=0.3),
            {"model": "reading", "start": child.make_weights(out, "reading", 1)},
        ),
    }
    return {
        name: (out, stage, more, child.gradients(child.settings(out, stage, **more))[1])
        for name, (stage, more) in cases.items()
    }


def compare(values: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """To 1e-6 of all gradients together, and no single number far off: fp32 sums in another order."""
    assert set(values) == set(expected)
    gap = torch.cat([(values[name] - value).flatten() for name, value in expected.items()])
    size = torch.cat([value.flatten() for value in expected.values()]).norm()
    assert size > 1e-1  # there is something to compare
    assert gap.norm() <= 1e-6 * size, float(gap.norm() / size)
    assert gap.abs().max() <= 1e-5 * size, float(gap.abs().max() / size)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "strategy"), [("student", "ddp"), ("images", "ddp"), ("student", "fsdp")])
def test_two_processes_give_the_joint_gradients(child: ModuleType, joint: Any, name: str, strategy: str):
    out, stage, more, expected = joint[name]
    place = out.parent / f"{name}_{strategy}"
    run(child, "gradients", place, [stage], **more, processes=2, strategy=strategy)
    compare(torch.load(f"{place}.pt"), expected)


@pytest.mark.slow
def test_accumulation_gives_the_joint_gradients(child: ModuleType, joint: Any):
    """Of losses that are means; contrasts see a part's people only, and so does what counts cells."""
    out, stage, more, _ = joint["student"]
    losses = {"nkr_contrast": 0.0}
    more = {**more, "losses": losses}
    expected = child.gradients(child.settings(out, stage, **more))[1]
    compare(child.gradients(child.settings(out, {**stage, "accumulate": 2}, **more))[1], expected)


@pytest.mark.slow
def test_two_processes_train_one_run_and_end_with_one_line(child: ModuleType, tmp_path: Path):
    """One lock, one line with the weights; what the run lacks is one line too, and no process is left waiting."""
    words = {"processes": 2, "checkpoint_every": 0.0}
    stage, out = child.stage("teacher", steps=1, batch=2), tmp_path / "run"
    done = command(child, out, stage, **words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == f"weights: {out}/weights"

    validation = [{"dataset": "3dpw", "split": "validation", "root": str(tmp_path / "none"), "fits": "none"}]
    data = {"overfit_people": 0, "validation": validation}
    lacking = command(child, tmp_path / "lacking", stage, **words, data=data, validate_every=1)
    assert lacking.returncode == 1 and not lacking.stdout
    (line,) = [line for line in lacking.stderr.splitlines() if line.startswith("dpmesh: ")]
    assert "3DPW" in line and str(tmp_path / "none") in line and "--data" not in line
    assert "Traceback" not in lacking.stderr, lacking.stderr


def command(child: ModuleType, out: Path, stage: dict[str, Any], **more: Any) -> Any:
    words = [sys.executable, child.__file__, "train", str(out), json.dumps({"stages": [stage], **more})]
    return subprocess.run(words, capture_output=True, text=True, timeout=300)
