"""`dpmesh predict` as a process: interrupted, killed, and started as a module."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import fakes
import numpy as np
import pytest
from PIL import Image

from dpmesh.cli.main import main
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.record import MARKER

PHOTO = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.jpg", "c.png"):
        Image.fromarray(PHOTO).save(folder / name)
    (folder / "notes.txt").write_text("not an image by its name")
    return folder


def names(folder: Path) -> set[str]:
    """All but the record, which is everywhere."""
    return {path.name for path in folder.iterdir()} - {MARKER}


def predict(*words: object) -> int:
    return main(["predict", *map(str, words)])


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path) -> None:
    def interrupted(**_: object) -> Predictor:
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, "from_pretrained", interrupted)
    assert predict(photos, "--out", tmp_path / "o") == 130


def test_python_m_is_the_command() -> None:
    """torchrun wants a module; a mistake there has the same status and line as the command."""
    command = [sys.executable, "-m", "dpmesh", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("dpmesh: unknown verb 'nothing'"), done.stderr


def test_help_is_light() -> None:
    """Neither the list of verbs nor a verb's help may load torch or an image library."""
    script = (
        "import sys\nfrom dpmesh.cli.main import main\n"
        "for words in (['--help'], ['predict', '--help']):\n"
        "    try: main(words)\n    except SystemExit as done: assert not done.code\n"
        "heavy = {'torch', 'cv2', 'numba', 'onnxruntime', 'trimesh', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout and "inspect" in done.stdout and "train" in done.stdout


_SLOW = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fakes import FakeDetector, FakeModel
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.options import ModelOptions
from dpmesh.inference.record import MARKER
from dpmesh.cli.main import main
detector = FakeDetector([(0.1, 0.1, 0.9, 0.9)])
Predictor.from_pretrained = lambda **_: Predictor(FakeModel(), detector, options=ModelOptions().record())
write = Path.write_bytes
def slow(path, data):
    if path.name == "scene.json" and path.parent.name == ".b.dpmesh-part":
        write(path, data[: len(data) // 2])
        print("half", flush=True)
        time.sleep(600)
    return write(path, data)
Path.write_bytes = slow
main(["predict", *sys.argv[2:]])
"""


@pytest.mark.usefixtures("loads")
def test_killed_in_the_middle_then_run_again(photos: Path, tmp_path: Path) -> None:
    words = [str(photos), "--out", str(tmp_path / "o"), "--save", "npz,json"]
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, str(Path(fakes.__file__).parent), *words],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    assert any(line == "half\n" for line in lines)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    assert {name for name in names(tmp_path / "o") if not name.startswith(".")} == {"a"}
    assert names(tmp_path / "o" / "a") == {"scene.npz", "scene.json"}
    assert predict(*words) == 0
    assert names(tmp_path / "o") == {"a", "b", "c"}
    assert names(tmp_path / "o" / "b") == {"scene.npz", "scene.json"}
    assert json.loads((tmp_path / "o" / "b" / "scene.json").read_text())["people"]
