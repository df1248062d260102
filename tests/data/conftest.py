"""The twins of the data sets (tools/fixtures/set_twins.py), written once, with fits for the free body."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpmesh.data.fits import FitBodies
from tools.fixtures import set_twins


@pytest.fixture(scope="session")
def twins() -> ModuleType:
    return set_twins


@pytest.fixture(scope="session")
def bodies(twins: ModuleType) -> FitBodies:
    made = twins.bodies()
    return FitBodies(made["neutral"], made["male"], made["female"], foreign=True)


@pytest.fixture(scope="session")
def sets(twins: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Root of all sets in JOTR's layout, and the truth by record id. Not to be changed."""
    root = tmp_path_factory.mktemp("sets")
    return root, twins.write_all(root)
