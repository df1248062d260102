"""tracks.npz and tracks.json that are damaged, hostile or of another program: one line each, and no pickle is read."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fakes import stick_body
from video_tracks import two_people

from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.video import tables
from dpmesh.video.files import save_tables
from dpmesh.video.tracks import ARRAYS, Ground, Tracks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tables(two_people(BodyModel(stick_body()), 6), tmp_path, {"source": "a.mp4"})
    return tmp_path


def rewrite(folder: Path, **changed: np.ndarray | None) -> None:
    """The table with some arrays replaced, or left out (None)."""
    with np.load(folder / "tracks.npz") as stored:
        arrays = {name: stored[name] for name in ARRAYS} | changed
    np.savez(folder / "tracks.npz", **{name: values for name, values in arrays.items() if values is not None})


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("box", None, "has no box"),
        ("transl", np.zeros((12, 2), np.float32), r"transl is float32 \(12, 2\), not float32 \(12, 3\)"),
        ("transl", np.zeros((12, 3)), r"transl is float64 \(12, 3\), not float32"),
        ("track", np.zeros(11, np.int64), r"track is int64 \(11,\), not int64 \(12,\)"),
        ("betas", np.zeros((3, 10), np.float32), r"betas is float32 \(3, 10\), not float32 \(2, 10\)"),
        ("K", np.eye(4), r"K is float64 \(4, 4\)"),
        ("frame", np.array(3), r"frame is int64 \(\), not int64 \(12,\)|time is"),
        ("joints3d", np.full((12, 30, 3), np.nan, np.float32), "joints3d has values that are not finite"),
        ("track", np.full(12, 7), "numbers are not the tracks'"),
        ("frame", np.arange(12)[::-1].copy(), "not in order of frame"),
        ("notes", np.array([{}], object), ""),
        ("score", np.array([{}] * 12, object), r"score is object \(12,\)"),
    ],
)
def test_an_array_that_does_not_fit(folder: Path, name: str, values: np.ndarray | None, message: str) -> None:
    rewrite(folder, **{name: values})
    if not message:  # further arrays are not read
        assert len(Tracks.load(folder)) == 2
        return
    with pytest.raises(InputError, match=message) as caught:
        Tracks.load(folder)
    assert "\n" not in str(caught.value) and "tracks.npz" in str(caught.value)


def test_a_size_that_is_only_claimed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header of many rows is refused before anything is allocated."""
    monkeypatch.setattr(tables, "LARGEST_TABLE", 1000)
    with pytest.raises(InputError, match="unpacked it would have"):
        Tracks.load(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04rest", b"\x80\x04K*.", b"<html>"])
def test_no_archive(folder: Path, content: bytes) -> None:
    (folder / "tracks.npz").write_bytes(content)
    with pytest.raises(InputError):
        Tracks.load(folder)
    (folder / "tracks.npz").unlink()
    with pytest.raises(InputError, match="no such file"):
        Tracks.load(folder)


def test_a_damaged_member(folder: Path) -> None:
    with zipfile.ZipFile(folder / "tracks.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["box.npy"] = members["box.npy"][:-8]
    with zipfile.ZipFile(folder / "tracks.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="damaged"):
        Tracks.load(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", "other/1"), ("fps", "fast"), ("fps", 0), ("fps", None), ("image_size", [1]), ("frames", -1),
        ("notes", None), ("fallbacks", []), ("world", {"rotation": [1], "translation": [1]}),
        ("world", {"rotation": np.full((3, 3), 1.0).tolist(), "translation": [0, 0, 0]}),
    ],
)  # fmt: skip
def test_a_text_that_does_not_fit(folder: Path, key: str, value: object) -> None:
    path = folder / "tracks.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(InputError, match=r"tracks\.json"):
        Tracks.load(folder)


def test_the_floor_and_the_counts_come_back(tmp_path: Path) -> None:
    tracks = two_people(BodyModel(stick_body()), 6)
    turned = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
    tracks = Tracks(
        **{
            **vars(tracks),
            "ground": Ground(turned, np.array([0, 1.5, 0])),
            "fallbacks": {"turned": 3},
            "notes": ("a",),
        }
    )
    save_tables(tracks, tmp_path, {})
    content = json.loads((tmp_path / "tracks.json").read_text())
    assert content["exported_frame"] == "world" and content["fallbacks"] == {"turned": 3, "interpolated": 0}
    again = Tracks.load(tmp_path)
    assert again.ground is not None and again.notes == ("a",)
    np.testing.assert_array_equal(again.ground.rotation, turned)
