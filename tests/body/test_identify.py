"""The user's files are recognised by content."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from body_arrays import Arrays, flat_smpl, regressor

from dpmesh import assets
from dpmesh.body.files import free_body, save_body
from dpmesh.body.identify import recognise
from dpmesh.errors import InputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(assets.FOLDER_VARIABLE, str(tmp_path / "assets"))
    return tmp_path / "assets"


@pytest.fixture(scope="module")
def smpl() -> Arrays:
    return flat_smpl()


def test_smpl_under_whatever_name(smpl: Arrays, tmp_path: Path):
    for name, gender in (
        ("basicModel_f_lbs_10_207_0_v1.0.0", "female"),
        ("SMPL_MALE", "male"),
        ("x-neutral.0", "neutral"),
    ):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(smpl, protocol=2))
        recognised = recognise(path)
        assert recognised is not None and recognised.asset == f"smpl_{gender}", name
    nameless = tmp_path / "model"
    with nameless.open("wb") as file:
        np.savez(file, **smpl)
    unknown = recognise(nameless)
    assert unknown is not None and unknown.asset == "" and "--gender" in unknown.what
    assert recognise(nameless, "male") == ("smpl_male", "SMPL, male, 10 shape components")
    (tmp_path / "female").mkdir()
    os.rename(nameless, tmp_path / "female" / "model.npz")
    assert recognise(tmp_path / "female" / "model.npz") == (
        "smpl_female",
        "SMPL, female, 10 shape components",
    )


def test_bodies_that_are_not_smpl(smpl: Arrays, tmp_path: Path):
    save_body(tmp_path / "free_neutral.npz", free_body())
    recognised = recognise(tmp_path / "free_neutral.npz")
    assert recognised is not None and recognised.asset == "" and "--body" in recognised.what
    np.savez(tmp_path / "amass_male.npz", poses=np.zeros((3, 156)))
    assert recognise(tmp_path / "amass_male.npz") is None


@pytest.mark.parametrize(
    ("array", "asset", "what"),
    [
        (regressor(17), "h36m_regressor", "_correct"),
        (regressor(17, first=500), "", "left leg first"),
        (regressor(17, hot=True), "", "coco"),
        (regressor(9), "extra_regressor", "9 joints"),
        (regressor(24), "", "24 rows"),
        (regressor(17).astype(np.float32), "h36m_regressor", "17 joints"),
    ],
)
def test_regressors(tmp_path: Path, array: np.ndarray, asset: str, what: str):
    with (tmp_path / "rows.bin").open("wb") as file:
        np.save(file, array)
    recognised = recognise(tmp_path / "rows.bin")
    assert recognised is not None and recognised.asset == asset and what in recognised.what


def test_vposer_in_both_of_torchs_formats(tmp_path: Path):
    state = OrderedDict(
        {"bodyprior_dec_fc1.weight": torch.zeros(512, 32), "bodyprior_enc_fc1.weight": torch.zeros(512, 63)}
    )
    for new in (True, False):
        torch.save(state, tmp_path / "TR00_E096.pt", _use_new_zipfile_serialization=new)
        assert recognise(tmp_path / "TR00_E096.pt") == ("vposer", "VPoser, version 1")
    torch.save({"vp_model.decoder_net.0.weight": torch.zeros(2)}, tmp_path / "two.pt")
    recognised = recognise(tmp_path / "two.pt")
    assert recognised is not None and recognised.asset == "" and "version 2" in recognised.what
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "resnet.pt")
    assert recognise(tmp_path / "resnet.pt") is None


@pytest.mark.parametrize(
    "content", [b"", b"text", b"PK", b"\x93NUM", bytes(300), b"(dear reader", np.float32(0).tobytes() * 9]
)
def test_other_files_are_nothing_or_damaged(tmp_path: Path, content: bytes):
    (tmp_path / "file").write_bytes(content)
    try:
        assert recognise(tmp_path / "file") is None
    except InputError as error:
        assert "damaged" in str(error)


@pytest.mark.parametrize(
    "header", ["{'descr': (\n", "{'descr': 3, 'shape': 'x', 'fortran_order': 1}", "\0", "(" * 99]
)
def test_a_regressor_with_a_torn_header(tmp_path: Path, header: str):
    (tmp_path / "file").write_bytes(
        b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(118).encode()
    )
    with pytest.raises(InputError, match="damaged"):
        recognise(tmp_path / "file")
