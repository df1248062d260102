"""The tiny model of child.py, for tests in this process."""

import copy
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import pytest

from dpmesh.train import context


@pytest.fixture(scope="session")
def child() -> ModuleType:
    path = Path(__file__).with_name("child.py")
    spec = importlib.util.spec_from_file_location("child", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def meta_models() -> Iterator[None]:
    """Every run counts its model's parameters on the meta device first: built once per configuration, then copied."""
    build = lru_cache(maxsize=16)(context.build_on_meta)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context, "build_on_meta", lambda config: copy.deepcopy(build(config)))
        yield
