"""Standard streams and names that would upset a program: one line, exit status 1, and whole files."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dpmesh.cli import main as command
from dpmesh.cli.main import main
from dpmesh.cli.run_report import above
from dpmesh.cli.streams import say
from dpmesh.errors import InputError

NAME = os.fsdecode(b"a\xe9\n\x1b[31m[bold]:smile:\xe2\x86\x92.png")


def photo(folder: Path, name: str = "a.png") -> Path:
    path = folder / name
    with path.open("wb") as file:
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(file, "PNG")
    return path


def dpmesh(words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a shell, so that its streams can be closed."""
    line = f'exec "{sys.executable}" -m dpmesh {words}'
    return subprocess.run(
        ["sh", "-c", line], capture_output=True, timeout=60, cwd=folder, env={**os.environ, **environment}
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_full_output(tmp_path: Path) -> None:
    line = b"No space left on device\n"
    for words in ("--help", "--version", "predict --help"):
        for unbuffered in ("", "1"):  # the stream is named where the fault shows in the last flush
            done = dpmesh(f"{words} > /dev/full", tmp_path, PYTHONUNBUFFERED=unbuffered)
            assert done.returncode == 1, words
            assert done.stderr in (b"dpmesh: " + line, b"dpmesh: standard output: " + line), words


def test_closed_streams(tmp_path: Path) -> None:
    assert dpmesh("--help >&-", tmp_path).returncode == 0
    assert dpmesh("--help <&- >&- 2>&-", tmp_path).returncode == 0
    assert dpmesh("nothing 2>&-", tmp_path).returncode == 2


def test_a_closed_stream_is_no_file(tmp_path: Path) -> None:
    """The next file that is opened must not get standard output's number."""
    script = (
        "import os, sys\nfrom dpmesh.cli.main import main\n"
        "main(['--version'])\nfile = open('written.txt', 'w')\n"
        "assert file.fileno() > 2, file.fileno()\nos.write(1, b'from a library')\n"
    )
    done = subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" -c "$1" >&-', "sh", script], cwd=tmp_path, timeout=60
    )
    assert done.returncode == 0 and (tmp_path / "written.txt").read_text() == ""


def test_a_closed_pipe_is_silent(tmp_path: Path) -> None:
    line = f'"{sys.executable}" -c "import sys; from dpmesh.cli.main import main; sys.exit(main([\'--help\']))" | true'
    done = subprocess.run(["sh", "-c", line], capture_output=True, timeout=60, cwd=tmp_path)
    assert done.stderr == b""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    photo(tmp_path, NAME)
    done = dpmesh('predict none.png "$(ls)" --out "$(ls)"', tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1 and b"\x1b" not in done.stderr
    assert b"a\\udce9\\n\\x1b[31m[bold]:smile:" in done.stderr, done.stderr


@pytest.mark.usefixtures("loads")
def test_any_name_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = photo(tmp_path, NAME)
    assert main(["predict", str(path), "--out", str(tmp_path / "o"), "--save", "json,npz"]) == 0
    assert main(["attention", str(path), "--out", str(tmp_path / "p")]) == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 2 and "\x1b" not in out and err == ""
    assert out.count("a\\udce9\\n\\x1b[31m[bold]:smile:→") == 4


def test_lines_above_the_bar_are_taken_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    above(Console(width=20))(f"{NAME} [red]x[/red] {'long ' * 20}")
    out = capfd.readouterr().out
    assert (
        len(out.splitlines()) == 1 and "[bold]:smile:" in out and "[red]x[/red]" in out and "\x1b" not in out
    )


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("is\nnothing", where="a\nb"), "a\\nb: is nothing"),
        (OSError(36, "File name too long", "x" * 5000), "x" * 200 + ": the name is longer than a path may be"),
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (MemoryError(), "not enough memory. Try smaller images"),
        (RuntimeError("a\nb"), "unexpected RuntimeError: a b. Set DPMESH_TRACEBACK=1 to see where, and please"),
        (UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates"), "unexpected UnicodeEncodeError"),
    ],
)  # fmt: skip
def test_any_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    def broken(_: list[str]) -> int:
        raise error

    monkeypatch.setattr(command, "run_verb", broken)
    monkeypatch.delenv("DPMESH_TRACEBACK", raising=False)
    assert main(["predict"]) == 1
    err = capfd.readouterr().err
    assert err.startswith(f"dpmesh: {line}") and err.count("\n") == 1
    if type(error) is RuntimeError:
        monkeypatch.setenv("DPMESH_TRACEBACK", "1")
        with pytest.raises(RuntimeError):
            main(["predict"])


def test_wrong_arguments_are_escaped(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "a.png", "--out", "o", "--save", "\x1b[31mx\ny"])
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "\x1b" not in err


@pytest.mark.parametrize(
    "verb", ["image_files", "assets", "attention", "compare", "convert", "data", "export", "train"]
)
def test_a_verb_prints_names_through_say(verb: str) -> None:
    """A name of a file, or in one, must not steer a terminal: these verbs have no `print` of their own."""
    source = Path(importlib.import_module(f"dpmesh.cli.{verb}").__file__ or "").read_text()
    assert not re.findall(r"(?<!\w)print\(", source)


def test_say_escapes_what_steers(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[31m\n\u202eb")
    say("c\rd", error=True)
    assert capsys.readouterr() == ("a\\x1b[31m\\n\\u202eb\n", "c\\rd\n")


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "x.jpg", "--out", ""],
        ["attention", "x.jpg", "--out="],
        ["compare", "x.jpg", "--out", " "],
        ["eval", "run", "synthocc", "--out", ""],
        ["bench", "robustness", "--out", ""],
        ["data", "check", "x", "--out", ""],
        ["data", "pack", "x", ""],
        ["convert", "released", "x", ""],
        ["convert", "sd15", "x", ""],
        ["export", "onnx", "x", ""],
    ],
)
def test_an_empty_place_to_write_to_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    printed = capsys.readouterr().err
    assert left.value.code == 2 and printed.count("\n") == 1 and "an empty name" in printed
