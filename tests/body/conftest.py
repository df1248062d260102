"""What several tests of bodies share."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from dpmesh.body.unpickle import load_smpl_pickle
from dpmesh.errors import InputError


@pytest.fixture
def refused_cheaply() -> Callable[[Path, bytes, int], str]:
    """(path, content, most): the error of reading a pickle, with at most `most` bytes allocated meanwhile."""

    def refuse(path: Path, blob: bytes, most: int) -> str:
        path.write_bytes(blob)
        tracemalloc.start()
        with pytest.raises(InputError) as caught:
            load_smpl_pickle(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most, peak
        return str(caught.value)

    return refuse
