"""`dpmesh serve`: wrong arguments are one line before a model is loaded; the address is printed when it listens."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from service import ask, image_form

from dpmesh.cli.main import main
from dpmesh.serve.server import listen


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["serve", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_taken_port(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "cannot listen there (Address already in use)" in refused(capsys, "--port", str(port))
    assert "no address" in refused(capsys, "--port", "70000")
    assert "cannot listen" in refused(capsys, "--host", "203.0.113.1")


def test_a_token_file_without_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text(" \n")
    assert "holds no token" in refused(capsys, "--token-file", str(tmp_path / "token"))
    assert "no such file" in refused(capsys, "--token-file", str(tmp_path / "none"))


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else there(name))
    assert "pip install 'dpmesh[serve]'" in refused(capsys)


def test_it_listens_on_this_machine_alone() -> None:
    with listen("127.0.0.1", 0) as bound:
        assert bound.getsockname()[0] == "127.0.0.1"
    help_text = subprocess.run(
        [sys.executable, "-m", "dpmesh", "serve", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "default: 127.0.0.1" in " ".join(help_text.split())


@pytest.mark.slow
def test_the_real_process(tmp_path: Path) -> None:
    """With a token, from its start to SIGTERM: one log line a request, with its id."""
    environment = {**os.environ, "DPMESH_TOKEN": "sesame", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "dpmesh", "serve", "--port", "0", "--max-people", "1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[0].rsplit(":", 1)[1])
        data = Path("examples/park.jpg").read_bytes()
        assert ask(port, "POST", "/v1/predict", image_form(data)).status == 401
        headers = {"Authorization": "Bearer sesame", "X-Request-ID": "first"}
        reply = ask(port, "POST", "/v1/predict", image_form(data), headers)
        assert (reply.status, len(reply.json["people"])) == (200, 1)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "[first] 127.0.0.1 POST /v1/predict 200" in log
    assert "sesame" not in log
