"""dpmesh.io: what is read is a regular file of bounded size, what is written is whole or not there."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dpmesh.errors import AssetError, DPMeshError, InputError, OutputError
from dpmesh.io import (
    atomic_path,
    atomic_write,
    folder_lock,
    is_part,
    mistaken,
    parse_json,
    read_bytes,
    read_json,
)


def test_a_file_is_read(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"abc")
    assert read_bytes(tmp_path / "a", limit=3) == b"abc"


@pytest.mark.parametrize("make", ["missing", "folder", "fifo", "device", "long", "null", "large", "socket"])
def test_what_is_no_file_of_bounded_size_is_one_error(tmp_path: Path, make: str):
    path = tmp_path / "x"
    if make == "folder":
        path.mkdir()
    elif make == "fifo":
        os.mkfifo(path)
    elif make == "device":
        path = Path("/dev/zero")
    elif make == "long":
        path = tmp_path / ("x" * 5000)
    elif make == "null":
        path = tmp_path / "a\0b"
    elif make == "large":
        path.write_bytes(b"1234")
    elif make == "socket":
        import socket

        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's name is short
        socket.socket(socket.AF_UNIX).bind("x")
        os.chdir(here)
    with pytest.raises(AssetError, match=r"^[^\n]+$"):
        read_bytes(path, limit=3, error=AssetError)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"a": 1}x', "1" * 5000 + "x", b"\xff\xfe", "\ufeff"]
)
def test_what_is_no_json_is_one_error(text: str | bytes):
    with pytest.raises(InputError, match=r"^[^\n]+$"):
        parse_json(text, "here")


def test_json_with_a_byte_order_mark(tmp_path: Path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json") == [1]


def test_a_file_has_the_rights_of_the_umask(tmp_path: Path):
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    atomic_write(tmp_path / "a", "old")
    with pytest.raises(KeyError), atomic_path(tmp_path / "a") as part:
        part.write_text("half")
        raise KeyError
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "file/inside"])
def test_what_cannot_be_written_is_one_error(tmp_path: Path, name: str):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"^[^\n]+$"):
        atomic_write(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_long_name_that_the_system_allows(tmp_path: Path):
    atomic_write(tmp_path / ("x" * 255), "text")
    assert (tmp_path / ("x" * 255)).read_text() == "text"


@pytest.mark.parametrize("name", ["x" * 255, "\u6f22" * 85, "\U0001f9cd" * 63, "a\u6f22" * 60])
def test_the_temporary_name_of_a_long_name_is_short_in_bytes(tmp_path: Path, name: str):
    atomic_write(tmp_path / name, "text")
    with pytest.raises(KeyError), atomic_path(tmp_path / name) as part:
        part.write_text("half")
        assert (
            len(os.fsencode(part.name)) < 130 and is_part(part.name, name) and not is_part(part.name, "other")
        )
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "text"


def test_the_second_process_is_refused_and_the_lock_ends_with_the_first(tmp_path: Path):
    hold = (
        "import sys; from pathlib import Path; from dpmesh.io import folder_lock\n"
        "with folder_lock(Path(sys.argv[1]), 'training'):\n    print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout and child.stdout.readline() == "held\n"
    with pytest.raises(OutputError, match="another training"), folder_lock(tmp_path, "training"):
        pass
    child.kill()
    child.wait()
    with folder_lock(tmp_path, "training"):
        pass


LFS = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
PAGE = b"\xef\xbb\xbf\r\n<!DOCTYPE html>\n<html lang=en><head><title>Log in</title></head><body>...</body></html>\n"
PLACEHOLDERS = {
    "git lfs": (LFS, "is a Git LFS pointer.*git lfs pull"),
    "git annex": (b"/annex/objects/SHA256E-s5--2cf24d.jpg\n", "is a git-annex pointer"),
    "page": (PAGE, "is a saved web page"),
    "page in capitals": (b"<HTML><BODY>quota exceeded</BODY></HTML>", "is a saved web page"),
    "xhtml": (b'<?xml version="1.0"?>\n<!-- x -->\n<!DOCTYPE html PUBLIC "x">', "is a saved web page"),
    "github": (b"404: Not Found", "is a server's refusal \\(404: Not Found\\)"),
    "hub": (b"Entry not found", "is a server's refusal"),
    "bucket": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a server's refusal"),
}


def loaders(path: Path) -> dict[str, Callable[[], object]]:
    """Every loader of a file that a user brings, by the kind of file."""
    from dpmesh.body.files import load_body
    from dpmesh.body.identify import recognise
    from dpmesh.checkpoint import read_config
    from dpmesh.data.motion_files import read_amass, read_bvh
    from dpmesh.data.poses import PoseBank
    from dpmesh.decode import image_size
    from dpmesh.evaluate import results
    from dpmesh.inference.detector import Detector
    from dpmesh.inference.images import read_image
    from dpmesh.inference.keypoints.files import open_keypoints
    from dpmesh.tensor_files import read_tensors
    from dpmesh.train.config_file import read_settings

    folder = path.parent
    return {
        "a.jpg": lambda: read_image(folder / "a.jpg"),
        "b.png": lambda: image_size(folder / "b.png"),
        "keypoints.json": lambda: open_keypoints(folder / "keypoints.json").people("a.jpg", (9, 9)),
        "SMPL.pkl": lambda: load_body(folder / "SMPL.pkl"),
        "SMPL.npz": lambda: load_body(folder / "SMPL.npz"),
        "rows.npy": lambda: recognise(folder / "rows.npy"),
        "a.pth": lambda: read_tensors(folder / "a.pth"),
        "a.safetensors": lambda: read_tensors(folder / "a.safetensors"),
        "a.ckpt": lambda: read_tensors(folder / "a.ckpt"),
        "config.json": lambda: read_config(folder),
        "ssdlite_mobilenet_v2_coco.onnx": lambda: Detector(folder=folder)(np.zeros((64, 64, 3), np.uint8)),
        "config.toml": lambda: read_settings(folder / "config.toml"),
        "poses.npz": lambda: PoseBank.read(folder / "poses.npz"),
        "walk.bvh": lambda: read_bvh(folder / "walk.bvh"),
        "amass.npz": lambda: read_amass(folder / "amass.npz"),
        "results.npz": lambda: results.load(folder / "results.npz"),
    }


@pytest.mark.parametrize(("content", "says"), PLACEHOLDERS.values(), ids=PLACEHOLDERS.keys())
def test_what_stands_in_a_files_place_is_named_by_every_loader(tmp_path: Path, content: bytes, says: str):
    for name, load in loaders(tmp_path / "x").items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DPMeshError, match=says) as caught:
            load()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500, name


ARCHIVES = {
    "zip": b"PK\x03\x04" + bytes(500),
    "RAR": b"Rar!\x1a\x07\x01\x00" + bytes(500),
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(500),
    "gzip": b"\x1f\x8b\x08" + bytes(500),
    "xz": b"\xfd7zXZ\x00" + bytes(500),
    "bzip2": b"BZh91AY" + bytes(500),
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(500),
    "tar": b"x".ljust(257, b"\0") + b"ustar\x0000" + bytes(300),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_or_an_empty_file_is_named(tmp_path: Path, kind: str):
    for name, load in loaders(tmp_path / "x").items():
        if name not in ("a.jpg", "keypoints.json", "SMPL.pkl", "a.pth"):
            continue
        (tmp_path / name).write_bytes(ARCHIVES[kind])
        if kind != "zip" or name in ("a.jpg", "keypoints.json"):
            with pytest.raises(DPMeshError, match=rf"is an? {kind} archive.*npack it first"):
                load()
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(DPMeshError, match=r"is empty|file is empty"):
            load()


def test_real_archives_are_recognised(tmp_path: Path):
    """As the standard library's own writers make them."""
    (tmp_path / "a").write_bytes(b"abc" * 300)
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path, "a")
    for kind in ("tar", "gztar", "bztar", "xztar"):
        shutil.make_archive(str(tmp_path / "a"), kind, tmp_path, "a")
    for name, kind in (("a.zip", "zip"), ("a.tar", "tar"), ("a.tar.gz", "gzip"), ("a.tar.bz2", "bzip2"),
                       ("a.tar.xz", "xz")):  # fmt: skip
        mistake = mistaken((tmp_path / name).read_bytes()[:512])
        assert mistake is not None and f"{kind} archive" in mistake.what
    assert mistaken(b"abc") is None and mistaken(b"\xff\xd8\xff") is None


def test_pages_and_pointers_can_be_read_where_asked_for(tmp_path: Path):
    (tmp_path / "page").write_bytes(PAGE)
    assert read_bytes(tmp_path / "page", any_content=True) == PAGE
