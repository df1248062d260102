"""SMPL's arrays from pickles: chumpy's selections and scipy's sparse matrices, every index checked, memory bounded."""

import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from dpmesh.body import unpickle
from dpmesh.body.unpickle import load_smpl_pickle
from dpmesh.errors import InputError

Refused = Callable[[Path, bytes, int], str]


class Select:
    """As chumpy pickles a selection."""

    def __init__(self, a: object, idxs: object) -> None:
        self.a, self.idxs = a, idxs


Select.__module__, Select.__qualname__ = "chumpy.reordering", "Select"


def selection(monkeypatch: pytest.MonkeyPatch, a: object, idxs: object) -> bytes:
    for module in ("chumpy", "chumpy.reordering"):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    monkeypatch.setattr(sys.modules["chumpy.reordering"], "Select", Select, raising=False)
    return pickle.dumps({"v_template": Select(a, idxs), "other": Select(a, idxs)}, 2)


def test_a_selection_is_bounded_before_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused_cheaply: Refused
) -> None:
    """A text of one mebibyte, selected six thousand times, would take 5.7 GB."""
    blob = selection(monkeypatch, np.array([b"x" * 999_999]), np.zeros(6000, np.uint8))
    assert "would take more than" in refused_cheaply(tmp_path / "SMPL.pkl", blob, 64 * 2**20)
    path = tmp_path / "small.pkl"
    path.write_bytes(selection(monkeypatch, np.arange(6.0), np.array([5, 0])))
    assert load_smpl_pickle(path)["v_template"].tolist() == [5, 0]


def test_sparse_matrices_are_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused_cheaply: Refused
) -> None:
    """Each is within its limit, all together are not; and fields that are not needed are not built."""
    monkeypatch.setattr(unpickle, "LARGEST_MADE", 2**21)
    one = scipy.sparse.coo_matrix(np.eye(400))
    path = tmp_path / "SMPL.pkl"
    path.write_bytes(pickle.dumps({f"k{i}": one for i in range(40)} | {"weights": one}, 2))
    assert list(load_smpl_pickle(path)) == ["weights"]
    blob = pickle.dumps({"weights": one.copy(), "posedirs": one.copy()}, 2)
    assert "would take more than" in refused_cheaply(path, blob, 2**23)


SPARSE = {
    "10^9 rows": {"_shape": (10**9, 10**9)},
    "a negative width": {"_shape": (4, -4)},
    "a shape of three": {"_shape": (4, 4, 4)},
    "a shape of text": {"_shape": "ab"},
    "a count of 10^9": {"indptr": np.array([0, 10**9, 10**9, 10**9, 4])},
    "falling counts": {"indptr": np.array([0, 3, 1, 3, 4])},
    "counts of floats": {"indptr": np.array([0, 1, 2, 3, 4.0])},
    "too few lines": {"indptr": np.array([0, 4])},
    "negative indices": {"indices": np.array([-1, 1, 2, 3])},
    "indices outside": {"indices": np.array([0, 1, 2, 4])},
    "too few indices": {"indices": np.array([0, 1])},
    "texts": {"data": np.array(["a", "b", "c", "d"])},
    "no data": {"data": None},
    "a table": {"data": np.zeros((2, 2))},
}


@pytest.mark.parametrize("layout", ["csc", "csr", "coo"])
@pytest.mark.parametrize("change", SPARSE.values(), ids=SPARSE.keys())
def test_a_sparse_matrix_that_does_not_fit_is_refused(
    tmp_path: Path, layout: str, change: dict[str, Any]
) -> None:
    matrix, path = scipy.sparse.csc_matrix(np.eye(4)).asformat(layout), tmp_path / "SMPL.pkl"
    path.write_bytes(pickle.dumps({"J_regressor": matrix}, 2))
    np.testing.assert_array_equal(load_smpl_pickle(path)["J_regressor"], np.eye(4))
    if layout == "coo":
        if "indptr" in change:
            return
        names = {"indices": "coords"}
        change = {names.get(k, k): (v, np.arange(4)) if k == "indices" else v for k, v in change.items()}
    matrix.__dict__.update(change)
    path.write_bytes(pickle.dumps({"J_regressor": matrix}, 2))
    with pytest.raises(InputError, match=r"SMPL\.pkl.*an array of the pickle is damaged"):
        load_smpl_pickle(path)
