"""`dpmesh convert`: what it writes, prints and refuses (with the configurations' widths scaled down)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dpmesh import assets
from dpmesh import config as configurations
from dpmesh.body.files import free_body, load_body, save_body
from dpmesh.cli.main import main
from dpmesh.convert.released_body import keep_smpl
from dpmesh.errors import OutputError
from dpmesh.model import DPMesh
from dpmesh.types import Inputs


@pytest.fixture(autouse=True)
def scaled_down(small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configurations.PRESETS, "release", small)
    monkeypatch.setenv(assets.FOLDER_VARIABLE, str(tmp_path / "assets"))


@pytest.fixture
def body(tmp_path: Path) -> Path:
    save_body(tmp_path / "mine.npz", free_body())
    return tmp_path / "mine.npz"


def rows(folder: Path) -> Path:
    folder.mkdir()
    array = np.zeros((9, 6890))
    array[np.arange(9), np.arange(9) * 100] = 1
    np.save(folder / "whatever.npy", array)
    return folder


@torch.no_grad()
def test_a_checkpoint_becomes_a_model_with_the_users_body(saved, body, tmp_path, capsys):
    out = tmp_path / "out"
    words = [
        "convert",
        "released",
        str(saved),
        str(out),
        "--body",
        str(body),
        "--regressors",
        str(rows(tmp_path / "r")),
    ]
    assert main([*words, "--merge-lora"]) == 0
    printed = capsys.readouterr().out
    assert "1552 equal copies" in printed and "144 layers merged" in printed and "mine.npz" in printed
    assert (
        "SMPL's licensed arrays" in printed and "no h36m_regressor" in printed and "all zero" not in printed
    )
    record = json.loads((out / "config.json").read_text())["provenance"]["body"]
    assert record["sha256"] == assets.sha256(body) and record["vertices"] == 6904
    assert record["extra_regressor"]["file"] == "whatever.npy"
    assert record["differs_from_checkpoint"][0].startswith(
        "v_template has shape (6904, 3), the checkpoint's (48, 3)"
    )
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors"]
    model = DPMesh.from_pretrained(out, load_body(body))
    crop, joints = torch.rand(1, 3, 256, 256), torch.rand(1, 30, 2) * 256
    prediction = model(Inputs(crop, joints, torch.ones(1, 30), torch.tensor([900.0])))
    assert prediction.vertices.shape == (1, 6904, 3) and torch.isfinite(prediction.vertices).all()


def test_a_conversion_without_a_body_is_reported(state, tmp_path, capsys):
    silent = {
        n: torch.zeros_like(v) if "zero_convs" in n or "middle_block_out" in n else v
        for n, v in state.items()
    }
    torch.save(silent, tmp_path / "w.pth.tar")
    assert main(["convert", "released", str(tmp_path / "w.pth.tar"), str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "no body was named" in printed and "dpmesh assets import" in printed
    assert "ControlNet's outputs are all zero" in printed


def test_weights_are_not_replaced_unasked(saved, tmp_path, capsys):
    words = ["convert", "released", str(saved), str(tmp_path / "out")]
    assert main(words) == 0
    capsys.readouterr()
    assert main(words) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


@pytest.mark.parametrize("kind", ["released", "sd15"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_strangers_file_is_not_replaced_unasked(saved, tmp_path, capsys, kind: str, name: str):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"mine")
    assert main(["convert", kind, str(saved), str(out)]) == 1
    assert name in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == [name] and (out / name).read_bytes() == b"mine"


def test_a_kept_smpl_replaces_no_other(tmp_path):
    body = free_body()
    theirs = {
        name: getattr(body, name)
        for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")
    } | {"f": body.faces}
    other = {**theirs, "v_template": theirs["v_template"] + 1}
    path = keep_smpl(tmp_path, theirs, {})
    mine = path.read_bytes()
    keep_smpl(tmp_path, theirs, {})  # the same: nothing to ask
    with pytest.raises(OutputError, match="another body already"):
        keep_smpl(tmp_path, other, {})
    path.write_bytes(b"my own")
    with pytest.raises(OutputError, match="another body already"):
        keep_smpl(tmp_path, theirs, {})
    assert path.read_bytes() == b"my own" and len(list(tmp_path.iterdir())) == 1
    keep_smpl(tmp_path, theirs, {}, overwrite=True)
    assert path.read_bytes() == mine


@pytest.mark.parametrize(
    "words",
    [
        ["released", "absent.pth.tar", "out"],
        ["released", "FILE", "out", "--body", "absent.npz"],
        ["released", "FILE", "out", "--regressors", "absent"],
        ["released", "FILE", "FILE"],
        ["sd15", "absent", "out"],
        ["sd15", "FILE", "out"],
    ],
)
def test_a_mistake_is_one_line(saved: Path, tmp_path: Path, capsys, words: list[str]):
    words = [str(saved) if w == "FILE" else str(tmp_path / w) if w in ("out", "absent") else w for w in words]
    assert main(["convert", *words]) == 1
    line = capsys.readouterr().err
    assert line.startswith("dpmesh: ") and line.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [[], ["other"], ["released"], ["released", "a", "b", "--merge"]])
def test_wrong_arguments(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main(["convert", *words])
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
