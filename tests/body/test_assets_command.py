"""`dpmesh assets import` and `doctor`: the user's files are imported, checked and kept."""

import os
import pickle
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from body_arrays import Arrays, V, flat_smpl, regressor

from dpmesh import assets
from dpmesh.assets import USER_ASSETS, asset_folder, find_asset, require_asset
from dpmesh.body.files import load_body
from dpmesh.body.resolve import find_regressors, user_body
from dpmesh.cli.main import main
from dpmesh.errors import AssetError, InputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(assets.FOLDER_VARIABLE, str(tmp_path / "assets"))
    return tmp_path / "assets"


@pytest.fixture(scope="module")
def smpl() -> Arrays:
    return flat_smpl()


class Evil:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_nothing_in_a_file_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trap = tmp_path / "trap"
    (tmp_path / "SMPL_MALE.pkl").write_bytes(pickle.dumps({"v_template": Evil(trap)}, protocol=2))
    torch.save({"bodyprior_dec_fc1.weight": Evil(trap)}, tmp_path / "vposer.pt")
    np.savez(tmp_path / "SMPL_NEUTRAL.npz", v_template=np.array([Evil(trap)], object))
    for name in ("SMPL_MALE.pkl", "vposer.pt", "SMPL_NEUTRAL.npz"):
        assert main(["assets", "import", str(tmp_path / name)]) == 1
        line = capsys.readouterr().err
        assert name in line and line.count("\n") == 1
    assert not trap.exists()


def test_import_doctor_and_use(
    smpl: Arrays, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
):
    source = tmp_path / "downloads" / "deep" / "er"
    source.mkdir(parents=True)
    (source / "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl").write_bytes(pickle.dumps(smpl, protocol=2))
    np.save(source / "a.npy", regressor(17))
    extra = regressor(9)
    extra[3] = np.eye(V)[4321]
    np.save(source / "b.npy", extra)
    torch.save({"bodyprior_dec_fc1.weight": torch.zeros(512, 32)}, source / "TR00_E096.pt")
    (source / "readme.txt").write_text("hello")
    assert find_asset("smpl_neutral") is None
    with pytest.raises(
        AssetError, match=r"smpl_neutral has not been imported.*smplify\.is\.tue\.mpg\.de.*assets import"
    ):
        require_asset("smpl_neutral")
    assert main(["assets", "doctor"]) == 0
    printed = capsys.readouterr().out
    assert all(
        f"{asset.name}: missing" in printed and asset.source in printed for asset in USER_ASSETS.values()
    )
    assert main(["assets", "import", str(tmp_path / "downloads")]) == 0
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "regressors/J_regressor_extra.npy",
        "regressors/J_regressor_h36m_correct.npy",
        "smpl/SMPL_NEUTRAL.pkl",
        "vposer/vposer_v1_0.pt",
    ]
    assert main(["assets", "import", str(tmp_path / "downloads")]) == 0  # again is no fault
    capsys.readouterr()
    assert main(["assets", "doctor"]) == 0
    printed = capsys.readouterr().out
    assert "smpl_neutral: imported" in printed and "smpl_male: missing (optional)" in printed
    # every part is located without a path
    imported = user_body(None, None)
    assert imported is not None
    arrays, record = imported
    np.testing.assert_array_equal(arrays.v_template, smpl["v_template"])
    assert arrays.regressors["joints30"][29].argmax() == 4321
    assert arrays.regressors["h36m17"].shape == (17, V)
    assert (
        record["file"] == "SMPL_NEUTRAL.pkl" and record["extra_regressor"]["file"] == "J_regressor_extra.npy"
    )
    assert find_regressors(source) == {
        "h36m_regressor": source / "a.npy",
        "extra_regressor": source / "b.npy",
    }
    with pytest.raises(InputError, match="no joint regressor"):
        find_regressors(tmp_path)
    # a damaged file is detected
    (folder / "vposer" / "vposer_v1_0.pt").write_bytes(b"cut")
    assert main(["assets", "doctor"]) == 1
    assert "vposer: wrong" in capsys.readouterr().out


def test_another_file_is_not_replaced_unasked(tmp_path: Path, folder: Path, smpl: Arrays, capsys):
    one, other = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(one, regressor(9))
    np.save(other, regressor(9) * 0.5 + regressor(9, first=5000) * 0.5)
    stored = folder / "regressors" / "J_regressor_extra.npy"
    assert main(["assets", "import", str(one)]) == 0
    assert main(["assets", "import", str(other)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert stored.read_bytes() == one.read_bytes()
    assert main(["assets", "import", str(other), "--overwrite"]) == 0
    assert stored.read_bytes() == other.read_bytes()
    assert [p.name for p in stored.parent.iterdir()] == [stored.name]
    # the same asset in its other format takes the place of the first
    (tmp_path / "SMPL_MALE.pkl").write_bytes(pickle.dumps(smpl, protocol=2))
    np.savez(tmp_path / "SMPL_MALE.npz", **smpl)
    assert main(["assets", "import", str(tmp_path / "SMPL_MALE.pkl")]) == 0
    assert main(["assets", "import", str(tmp_path / "SMPL_MALE.npz"), "--overwrite"]) == 0
    assert find_asset("smpl_male") == folder / "smpl" / "SMPL_MALE.npz"
    assert not (folder / "smpl" / "SMPL_MALE.pkl").exists()
    assert load_body(folder / "smpl" / "SMPL_MALE.npz").regressors["joints30"].shape == (30, V)


def test_what_cannot_be_imported_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "note.txt").write_text("hello")
    for words, message in (
        ([str(tmp_path / "absent")], "no such file or folder"),
        ([str(tmp_path / "note.txt")], "not a file that can be imported"),
        ([str(tmp_path)], "no file to import"),
    ):
        assert main(["assets", "import", *words]) == 1
        line = capsys.readouterr().err
        assert message in line and line.count("\n") == 1
    (tmp_path / "epoch_3.pth.tar").write_bytes(b"x")
    assert main(["assets", "import", str(tmp_path / "epoch_3.pth.tar")]) == 1
    assert "dpmesh convert" in capsys.readouterr().err


def test_random_numbers_in_smpls_layout_are_refused(
    smpl: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(V, 3)).astype(np.float32)
    for vertices, faces, message in (
        (noise, rng.integers(0, V, (13776, 3)), "m high"),
        (0.2 * noise, rng.integers(0, V, (13776, 3)), "not closed"),
        (0.2 * noise, smpl["f"], "no surface"),
    ):
        np.savez(tmp_path / "SMPL_NEUTRAL.npz", **{**smpl, "v_template": vertices, "f": faces})
        assert main(["assets", "import", str(tmp_path / "SMPL_NEUTRAL.npz")]) == 1
        line = capsys.readouterr().err
        assert message in line and "SMPL_NEUTRAL.npz" in line and line.count("\n") == 1
    assert find_asset("smpl_neutral") is None


@pytest.mark.parametrize("rows", [9, 17])
def test_a_regressor_of_random_numbers_is_refused_by_its_own_path(
    smpl: Arrays, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], rows: int
):
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).random((rows, V)) + np.arange(V) / V)
    assert main(["assets", "import", str(path)]) == 1
    assert re.search(r"rows\.npy: row \d+ of this joint regressor sums to \d+", capsys.readouterr().err)
    # imported by another version, or changed since
    np.savez(tmp_path / "SMPL_NEUTRAL.npz", **smpl)
    with pytest.raises(InputError, match=r"rows\.npy: row \d+ of this joint regressor sums to"):
        load_body(tmp_path / "SMPL_NEUTRAL.npz", **{"extra" if rows == 9 else "h36m": path})
    # the same, in the folder of imported files
    (folder / "regressors").mkdir(parents=True)
    name = "J_regressor_extra.npy" if rows == 9 else "J_regressor_h36m_correct.npy"
    os.rename(path, folder / "regressors" / name)
    assert main(["assets", "doctor"]) == 1
    assert f"{name}: row" in capsys.readouterr().out


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert asset_folder() == tmp_path / "assets"
    monkeypatch.delenv(assets.FOLDER_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert asset_folder() == tmp_path / ".local" / "share" / "dpmesh"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert asset_folder() == tmp_path / "data" / "dpmesh"


def test_one_damaged_file_keeps_none_of_the_others(
    smpl: Arrays, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
):
    source = tmp_path / "downloads"
    source.mkdir()
    np.save(source / "a.npy", regressor(17))
    (source / "b_cut.npy").write_bytes((source / "a.npy").read_bytes()[:5000])
    np.save(source / "c_nan.npy", np.full((9, V), np.nan))
    (source / "d_neutral.pkl").write_bytes(pickle.dumps(smpl, protocol=2)[:-100_000])
    np.savez(source / "e_male.npz", **{**smpl, "v_template": np.full((V, 3), np.nan)})
    (source / "f.npz").write_bytes(b"PK\x03\x04" + bytes(500))
    os.mkfifo(source / "g.pkl")
    torch.save({"bodyprior_dec_fc1.weight": torch.full((512, 32), torch.inf)}, source / "h.pt")
    np.save(source / "z.npy", regressor(9))
    (source / os.fsdecode(b"\xff.npy")).write_bytes((source / "z.npy").read_bytes())
    absent = str(tmp_path / ("x" * 5000))
    assert main(["assets", "import", absent, str(tmp_path / "a\0b"), str(source)]) == 1
    output = capsys.readouterr()
    assert output.out.count("→") == 3 and r"\xff.npy" in output.out
    lines = output.err.splitlines()
    for name in (
        "no such file or folder",
        "b_cut.npy",
        "c_nan.npy",
        "d_neutral.pkl",
        "e_male.npz",
        "f.npz",
        "h.pt",
    ):
        assert sum(name in line and line.startswith("dpmesh: ") for line in lines) == 1 + name.startswith(
            "no"
        ), name
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == [
        "J_regressor_extra.npy",
        "J_regressor_h36m_correct.npy",
    ]


OTHER_MODELS = {  # joints, vertices, pose correctives, shape components
    "SMPL-H": (52, 6890, 459, 16),
    "SMPL-X": (55, 10475, 486, 400),
    "MANO": (16, 778, 135, 10),
    "FLAME": (5, 5023, 36, 400),
    "STAR": (24, 6890, 93, 300),
}


@pytest.mark.parametrize("name", OTHER_MODELS)
def test_other_models_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str):
    """Shapes and extra fields as in the official files; SMPL-X's hold dictionaries in object arrays."""
    joints, vertices, correctives, components = OTHER_MODELS[name]
    content = {
        "v_template": np.zeros((vertices, 3)),
        "shapedirs": np.broadcast_to(np.float32(0), (vertices, 3, components)).astype(np.float16),
        "posedirs": np.zeros((vertices, 3, correctives), np.float16),
        "weights": np.eye(joints, dtype=np.float16)[np.arange(vertices) % joints],
        "J_regressor": np.zeros((joints, vertices), np.float16),
        "kintree_table": np.zeros((2, joints), np.uint32),
        "f": np.zeros((9, 3), np.uint32),
        "hands_componentsl": np.zeros((45, 45)),
        "joint2num": np.array({"Pelvis": 0}, object),
        "part2num": np.array({"hips": 0}, object),
        "lmk_faces_idx": np.zeros(51, np.int64),
    }
    np.savez(tmp_path / "model.npz", **content)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(content, 2))
    for path in (tmp_path / "model.npz", tmp_path / "model.pkl"):
        with pytest.raises(
            InputError, match=rf"{path.name}: this is {name}, not SMPL\. .*smpl\.is\.tue\.mpg\.de"
        ):
            load_body(path)
        assert main(["assets", "import", str(path)]) == 1
        line = capsys.readouterr().err
        assert f"{name}. The models here use SMPL" in line and line.count("\n") == 1


def test_an_archive_is_to_be_unpacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with zipfile.ZipFile(tmp_path / "SMPL_python_v.1.1.0.zip", "w") as archive:
        archive.writestr("smpl/models/basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl", b"x")
    with tarfile.open(tmp_path / "mano.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("model.pkl"))
    for name, kind in (("SMPL_python_v.1.1.0.zip", "zip"), ("mano.tar.gz", "gzip")):
        assert main(["assets", "import", str(tmp_path / name)]) == 1
        line = capsys.readouterr().err
        assert f"a {kind} archive" in line and "npack it" in line and line.count("\n") == 1
        with pytest.raises(InputError, match=f"is a {kind} archive.*npack it first"):
            load_body(tmp_path / name)
