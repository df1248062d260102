"""dpmesh.io: what is read is a regular file of bounded size, what is written is whole or not there."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dpmesh.errors import AssetError, InputError, OutputError
from dpmesh.io import atomic_path, atomic_write, folder_lock, is_part, parse_json, read_bytes, read_json


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
def test_a_part_beside_a_long_name_is_short_in_bytes(tmp_path: Path, name: str):
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
