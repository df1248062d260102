"""A released checkpoint's twin: tools/released_twin.py at scaled-down widths."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from dpmesh.config import DPMeshConfig

TOOL = Path(__file__).parents[2] / "tools" / "released_twin.py"


@pytest.fixture(scope="session")
def twin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("released_twin", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def small(twin: ModuleType) -> DPMeshConfig:
    return twin.small_config()


@pytest.fixture
def state(twin: ModuleType, small: DPMeshConfig) -> dict[str, Tensor]:
    """The twin's tensors; changing one leaves the others' tests alone."""
    return twin.released_state(small, twin.SMALL)


@pytest.fixture
def saved(state: dict[str, Tensor], tmp_path: Path) -> Path:
    torch.save(state, tmp_path / "twin.pth.tar")
    return tmp_path / "twin.pth.tar"
