"""The tiny model of child.py, for tests in this process."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def child() -> ModuleType:
    path = Path(__file__).with_name("child.py")
    spec = importlib.util.spec_from_file_location("child", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
