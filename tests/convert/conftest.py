"""A released checkpoint's twin: tools/fixtures/released_twin.py at scaled-down widths."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from dpmesh.config import DPMeshConfig
from tools.fixtures import released_twin


@pytest.fixture(scope="session")
def twin() -> ModuleType:
    return released_twin


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
