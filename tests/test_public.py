"""The public surface: short, documented, cheap to import."""

import inspect
import subprocess
import sys
from importlib.metadata import version

import pytest

import dpmesh

NAMES = [
    "AssetError",
    "ConfigError",
    "DPMesh",
    "DPMeshConfig",
    "DPMeshError",
    "InputError",
    "Inputs",
    "OutputError",
    "Person",
    "Prediction",
    "Predictor",
    "Scene",
    "WeightsError",
    "__version__",
    "load_body",
]


def run(code: str, *flags: str) -> str:
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_all_is_a_literal_list() -> None:
    assert dpmesh.__all__ == NAMES and dir(dpmesh) == sorted(NAMES)
    assert dpmesh.__version__ == version("dpmesh")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_every_name_has_a_docstring_of_its_own(name: str) -> None:
    member = getattr(dpmesh, name)
    assert member.__doc__, name
    assert not member.__doc__.startswith(f"{name}("), "a dataclass's automatic docstring"
    if inspect.isclass(member) and issubclass(member, dpmesh.DPMeshError):
        assert member is dpmesh.DPMeshError or member.__doc__ != dpmesh.DPMeshError.__doc__


def test_bare_import_is_silent_and_loads_nothing_heavy() -> None:
    code = """
import sys
before = set(sys.modules)
import dpmesh
dpmesh.__version__, dpmesh.InputError
new = {m.split(".")[0] for m in set(sys.modules) - before}
heavy = new & {"torch", "numpy", "cv2", "numba", "onnxruntime", "trimesh", "scipy", "rich", "lightning_fabric"}
assert not heavy, heavy
"""
    assert run(code, "-W", "error") == ""


def test_predictor_does_not_load_what_only_training_drawing_or_a_fit_needs() -> None:
    code = """
import sys, dpmesh
dpmesh.Predictor, dpmesh.Scene, dpmesh.Person
unused = ["dpmesh.cli", "dpmesh.convert", "dpmesh.data", "dpmesh.evaluate", "dpmesh.render", "dpmesh.train"]
unused += ["torch._dynamo", "diffusers", "lightning_fabric", "matplotlib", "numba", "onnx", "onnxruntime"]
unused += ["pandas", "rich", "roma", "scipy", "timm", "trimesh"]
loaded = [name for name in unused if name in sys.modules]
assert not loaded, loaded
"""
    run(code)


def test_help_does_not_import_torch() -> None:
    code = "import sys; from dpmesh.cli.main import main; main(['--help']); assert 'torch' not in sys.modules"
    shown = run(code)
    for verb in ("predict", "train", "inspect"):
        assert verb in shown


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        dpmesh.Nonsense  # noqa: B018
