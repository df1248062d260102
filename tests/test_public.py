"""The public surface: short, documented, cheap to import, and all that the tests use."""

import ast
import doctest
import inspect
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

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
    "ModelOptions",
    "OutputError",
    "Person",
    "PredictOptions",
    "Prediction",
    "Predictor",
    "Scene",
    "Tracks",
    "Video",
    "WeightsError",
    "__version__",
    "load_body",
]
ROOT = Path(__file__).parents[1]
PRIVATE = re.compile(r"_(?!_|repr_)\w+")  # _repr_png_ and the like are public: notebooks call them


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


def test_predicting_json_does_not_load_what_only_drawing_and_meshes_need(tmp_path: Path) -> None:
    code = f"""
import gc, sys
from dpmesh.cli.main import main
assert main(["predict", {str(ROOT / "examples" / "park.jpg")!r}, "--save", "json", "--out", {str(tmp_path)!r}]) == 0
unused = ["dpmesh.evaluate", "dpmesh.render", "dpmesh.train", "lightning_fabric", "numba", "rich", "scipy"]
unused += ["PIL.TiffImagePlugin", "torch._dynamo"]
loaded = [name for name in unused if name in sys.modules]
assert not loaded, loaded
assert gc.isenabled() and gc.get_freeze_count()
"""
    assert "2 people" in run(code)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_examples_in_docstrings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    member = getattr(dpmesh, name)
    examples = doctest.DocTestFinder().find(member, f"dpmesh.{name}", globs={})
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for example in examples:
        runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)
    assert runner.tries or name not in ("Predictor", "Scene"), "no example"


def test_the_example_of_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testmod(dpmesh)
    assert tried and not failed


def test_help_of_the_predictor_is_short() -> None:
    shown = pydoc.plain(pydoc.render_doc(dpmesh.Predictor)).splitlines()
    assert len(shown) <= 72 and max(map(len, shown)) <= 100
    assert len(inspect.getdoc(dpmesh.Predictor).splitlines()) < 20  # pyright: ignore[reportOptionalMemberAccess]
    assert any(">>> predictor =" in line for line in shown)


def test_help_does_not_import_torch() -> None:
    code = "import sys; from dpmesh.cli.main import main; main(['--help']); assert 'torch' not in sys.modules"
    shown = run(code)
    for verb in ("predict", "train", "inspect"):
        assert verb in shown


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        dpmesh.Nonsense  # noqa: B018


def defined_names(tree: ast.AST) -> Iterator[str]:
    """Functions, classes, variables, attributes, and strings: a buffer's name is one, or begins with one."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.Constant(value=str(name)):
                yield name
            case _:
                pass


def private_uses(tree: ast.AST, private: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """(line, name) of each private name of the package that a test imports, reads, replaces or uses in a script."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == "dpmesh":
                used = [*module.split("."), *(name.name for name in names)]
                yield from ((node.lineno, name) for name in used if PRIVATE.fullmatch(name))
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if private.fullmatch(name):
                yield node.lineno, name
            case ast.Call(func=ast.Attribute(attr="setattr") | ast.Name(id="getattr" | "setattr")):
                words = [word.value for word in node.args if isinstance(word, ast.Constant)]
                yield from ((node.lineno, word) for word in words if private.fullmatch(str(word)))
            case ast.Constant(value=str(text)) if "dpmesh" in text:
                matches = re.findall(r"\.(_(?!_)\w+)|import (_(?!_)\w+)", text)
                yield from ((node.lineno, a or b) for a, b in matches if private.fullmatch(a or b))
            case _:
                pass


def test_tests_use_public_names_only():
    defined = {
        name
        for path in (ROOT / "src").rglob("*.py")
        for name in defined_names(ast.parse(path.read_text()))
        if PRIVATE.fullmatch(name)
    }
    private = re.compile("|".join(name + r"\w*" * name.endswith("_") for name in defined))
    used = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for line, name in private_uses(ast.parse(path.read_text()), private)
    ]
    assert not used, "\n".join(used)
