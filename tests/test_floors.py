"""A module imports only from lower floors, and no files import each other, also inside a room; no exemptions."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
ROOT = REPOSITORY / "src" / "dpmesh"

FLOORS = (
    ("errors",),
    ("io",),
    ("skeletons", "assets", "config_io", "device", "decode", "fields"),
    ("geometry", "checkpoint", "tensor_files"),
    ("body",),
    ("diffusion", "pose_prior", "render"),
    ("page",),
    ("backbone", "regressor", "data"),
    ("types", "config"),
    ("ablations",),
    ("model",),
    ("profiling", "losses", "metrics", "convert", "fuse", "onnx"),
    ("inference",),
    ("animation", "bulk"),
    ("video",),
    ("viewer", "serve"),
    ("evaluate",),
    ("train",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(source: str) -> set[str]:
    """Every dotted name that a module's source imports, anywhere in it: modules, and names that may be modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            module = node.module or ""
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def rooms_of(source: str) -> set[str]:
    names = (name.split(".") for name in imported(source))
    return {parts[1] for parts in names if parts[0] == "dpmesh" and len(parts) > 1 and parts[1] in FLOOR}


def graph_of(folder: Path, prefix: str) -> dict[str, set[str]]:
    """Module -> the modules of the same folder that it imports. A package's __init__ counts as a module."""
    paths = {
        ".".join(
            [*([prefix] if prefix else []), *path.relative_to(folder).with_suffix("").parts]
        ).removesuffix(".__init__"): path
        for path in folder.rglob("*.py")
    }
    return {
        name: {other for other in imported(path.read_text()) if other in paths and other != name}
        for name, path in paths.items()
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path):
    here = room_of(path)
    for room in rooms_of(path.read_text()):
        assert FLOOR[room] < FLOOR[here] or room == here, (
            f"{here} (floor {FLOOR[here]}) imports {room} (floor {FLOOR[room]})"
        )


@pytest.mark.parametrize(
    ("folder", "prefix"), [("src/dpmesh", "dpmesh"), ("benchmarks", "benchmarks"), ("tools", "tools")]
)
def test_no_files_import_each_other(folder: str, prefix: str):
    graph = graph_of(REPOSITORY / folder, prefix)
    graph.pop("dpmesh", None)  # the public surface, above all floors
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_every_room_has_a_floor():
    assert {room_of(path) for path in MODULES} <= set(FLOOR)


def test_the_walk_sees_imports():
    source = (
        "import dpmesh.cli.main\nfrom dpmesh.train import trainer\ndef f():\n    from dpmesh import model\n"
    )
    assert rooms_of(source) == {"cli", "train", "model"}
    assert "dpmesh.train.trainer" in imported(source)
