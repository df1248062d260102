"""From a file in a released checkpoint's layout (widths scaled down) to bodies over a photograph, by two commands."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import released_twin as twin
import torch
from PIL import Image

from dpmesh import assets
from dpmesh import config as configurations
from dpmesh.body.files import free_body, save_body
from dpmesh.cli.main import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """(weights, the body that was named for them)."""
    monkeypatch.setitem(configurations.PRESETS, "release", twin.small_config())
    monkeypatch.setenv(assets.FOLDER_VARIABLE, str(tmp_path / "assets"))
    torch.save(twin.released_state(twin.small_config(), twin.SMALL), tmp_path / "twin.pth.tar")
    body, out = tmp_path / "mine.npz", tmp_path / "weights"
    mine = free_body()
    save_body(body, replace(mine, faces=mine.faces[:-1]))  # not the shipped one
    words = ["convert", "released", str(tmp_path / "twin.pth.tar"), str(out), "--body", str(body)]
    assert main([*words, "--merge-lora"]) == 0
    return out, body


def test_a_converted_checkpoint_draws_bodies(
    converted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, body = converted
    image = ROOT / "examples" / "two_people.jpg"
    words = ["predict", str(image), "--out", str(tmp_path / "o"), "--weights", str(weights)]

    assert main(words) == 1  # no body: never the free one in SMPL's place
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "--body" in err and "dpmesh assets import" in err
    assert not (tmp_path / "o" / "two_people").exists()

    assert main([*words, "--body", str(body)]) == 0
    printed = capsys.readouterr().out
    assert "2 people" in printed and "the body is not the checkpoint's: v_template" in printed
    folder = tmp_path / "o" / "two_people"
    assert {p.name for p in folder.iterdir() if p.name != ".dpmesh.json"} == {
        "overlay.png", "side.png", "scene.glb", "scene.npz", "scene.json", "person_00.obj", "person_01.obj",
    }  # fmt: skip
    scene = json.loads((folder / "scene.json").read_text())
    assert scene["weights"]["provenance"]["sha256"] == assets.sha256(tmp_path / "twin.pth.tar")
    assert scene["weights"]["body"]["sha256"] == assets.sha256(body)
    assert any("not the checkpoint's" in note for note in scene["notes"])
    with np.load(folder / "scene.npz", allow_pickle=False) as stored:
        assert stored["vertices"].shape == (2, 6904, 3) and np.isfinite(stored["vertices"]).all()
        assert len(stored["faces"]) == len(free_body().faces) - 1
    photograph, overlay = (np.asarray(Image.open(p)).astype(int) for p in (image, folder / "overlay.png"))
    assert photograph.shape == overlay.shape and (np.abs(photograph - overlay).max(-1) > 20).mean() > 0.005
