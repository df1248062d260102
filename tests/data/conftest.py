"""The sets' twins (tools/set_twins.py), written once; fits are for the free body, which FitBodies takes as foreign."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpmesh.data.fits import FitBodies

TOOL = Path(__file__).parents[2] / "tools" / "set_twins.py"


@pytest.fixture(scope="session")
def twins() -> ModuleType:
    spec = importlib.util.spec_from_file_location("set_twins", TOOL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["set_twins"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def bodies(twins: ModuleType) -> FitBodies:
    made = twins.bodies()
    return FitBodies(made["neutral"], made["male"], made["female"], foreign=True)


@pytest.fixture(scope="session")
def sets(twins: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Root of all sets in JOTR's layout, and the truth by record id. Not to be changed."""
    root = tmp_path_factory.mktemp("sets")
    return root, twins.write_all(root)
