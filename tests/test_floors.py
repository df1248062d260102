"""A module imports only from lower floors (docs/conventions.md); no exemptions."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "dpmesh"

FLOORS = (
    ("errors",),
    ("io",),
    ("skeletons", "assets", "plain", "decode"),
    ("geometry", "body", "checkpoint"),
    ("diffusion", "pose_prior", "render"),
    ("backbone", "regressor", "data"),
    ("configurations",),
    ("model",),
    ("cost", "losses", "metrics", "convert", "optimise", "export"),
    ("pipeline",),
    ("evaluate",),
    ("train",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(source: str) -> set[str]:
    """Rooms of this package that a module's source imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            module = node.module or ""
            names = [f"dpmesh.{a.name}" for a in node.names] if module == "dpmesh" else [module]
        found |= {name.split(".")[1] for name in names if name.startswith("dpmesh.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path):
    here = room_of(path)
    for room in imports_of(path.read_text()):
        assert FLOOR[room] < FLOOR[here] or room == here, (
            f"{here} (floor {FLOOR[here]}) imports {room} (floor {FLOOR[room]})"
        )


def test_the_manual_has_the_same_floors():
    page = (ROOT.parent.parent / "docs" / "conventions.md").read_text()
    rows = re.findall(r"^\| \d \| (.+) \|$", page, re.MULTILINE)
    floors = [floor for row in rows for floor in re.split(r" · above (?:it|that) | · ", row)]
    assert tuple(tuple(re.findall(r"\w+", floor.partition(", which")[0])) for floor in floors) == FLOORS


def test_the_walk_sees_imports():
    source = "import dpmesh.cli.main\nfrom dpmesh.train import loop\ndef f():\n    from dpmesh import model\n"
    assert imports_of(source) == {"cli", "train", "model"}
