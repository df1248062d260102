"""The public surface: short, documented, cheap to import."""

import subprocess
import sys

import dpmesh

NAMES = ["DPMesh", "DPMeshError", "Inputs", "Person", "Prediction", "Predictor", "Scene"]


def test_all_is_a_literal_list_and_documented():
    assert dpmesh.__all__ == NAMES
    for name in NAMES:
        assert getattr(dpmesh, name).__doc__, name


def test_bare_import_is_silent_and_loads_nothing_heavy():
    code = """
import sys
before = set(sys.modules)
import dpmesh
new = {m.split(".")[0] for m in set(sys.modules) - before}
heavy = new & {"torch", "numpy", "cv2", "numba", "onnxruntime", "trimesh", "scipy", "rich", "lightning_fabric"}
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_help_does_not_import_torch():
    code = "import sys; from dpmesh.cli.main import main; main(['--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in ("predict", "train", "inspect"):
        assert verb in done.stdout


def test_unknown_name_is_an_attribute_error():
    try:
        dpmesh.Nonsense  # noqa: B018
    except AttributeError as error:
        assert "Nonsense" in str(error)
    else:
        raise AssertionError("dpmesh.Nonsense exists")
