"""Pickles are read as data, with pickle's own results; damage is an error of one line."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from dpmesh.body.pickle_reader import read_pickle
from dpmesh.body.unpickle import load_pickle, load_smpl_pickle
from dpmesh.errors import InputError
from tools.fixtures import evaluation_twin_3dpw

Refused = Callable[[Path, bytes, int], str]
DTYPES = ["b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]
SHAPES = [(), (0,), (3,), (2, 3), (2, 3, 4), (1, 1)]


def same(one: Any, other: Any) -> None:
    """Equal in type, memory order and every bit."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype.str == other.dtype.str and one.shape == other.shape
        assert one.flags.f_contiguous == other.flags.f_contiguous and other.flags.writeable
        if one.dtype == object:
            same(one.tolist(), other.tolist())
        else:
            assert one.tobytes() == other.tobytes()
    elif isinstance(one, dict):
        assert list(one) == list(other)
        same(list(one.values()), list(other.values()))
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    else:
        assert one == other


def content() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    arrays = [
        (rng.random(shape) * 100).astype(np.dtype(dtype).newbyteorder(order))
        for dtype in DTYPES
        for order in "<>"
        for shape in SHAPES
    ]
    turned = [np.asfortranarray(a) for a in arrays if a.ndim > 1] + [a.T for a in arrays if a.ndim == 3]
    texts = [np.array(["ab", "cdé"]), np.array(["ab", "x"], ">U7"), np.array([b"x", b"yz"])]
    mixed = np.array([None, [1, 2], np.zeros(3), "x"], object)
    scalars = [np.float64(2.5), np.float32(1), np.bool_(True), np.int8(-3), np.uint64(2**63), np.str_("hé")]
    plain = [
        1, -1, 255, 256, 65536, 2**31, 2**32 - 1, -(2**40), 1.5, float("inf"), "é\n\\u'", "", "y" * 300, b"", b"ab",
        b"z" * 300, True, None, (), (1,), (1, 2, 3, 4), [], {}, {"a": 1, 2: "b", b"c": None}, {1, 2}, [[1, [2]]],
    ]  # fmt: skip
    return {
        "arrays": [*arrays, *turned, *texts],
        "mixed": mixed,
        "scalars": scalars,
        "plain": plain,
        "again": plain,
    }


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_arrays_equals_what_pickle_reads(protocol: int) -> None:
    blob = pickle.dumps(content(), protocol)
    same(pickle.loads(blob), read_pickle(blob))  # noqa: S301
    if protocol < 4:  # the other numpy's names; later protocols store their lengths
        new = b"numpy._core" in blob  # numpy 2 wrote it
        old = blob.replace(*((b"numpy._core", b"numpy.core") if new else (b"numpy.core", b"numpy._core")))
        assert old != blob
        same(pickle.loads(blob), read_pickle(old))  # noqa: S301


def test_python_2_pickles_are_read_as_before() -> None:
    kept = {"a": [a for a in content()["arrays"] if a.dtype.kind in "fiu"], "genders": ["m", "é"], "n": 3}
    blob = evaluation_twin_3dpw.python2(kept)
    same(pickle.loads(blob, encoding="latin1"), read_pickle(blob))  # noqa: S301
    # Protocol 0, as Python 2 wrote an array: text with its bytes escaped.
    text = (
        b"cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n"
        + (
            b"(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS"
            b"'\\x00\\x00\\x00\\x00\\x00\\x00\\xf8?\\x00\\x00\\x00\\x00\\x00\\x00\\x00@'\ntb."
        )
    )
    np.testing.assert_array_equal(read_pickle(text), [1.5, 2.0])


def test_damage_is_one_line_or_other_content(tmp_path: Path) -> None:
    """Bytes changed at random: an error of one line, or a file of other content."""
    rng, path, refused = np.random.default_rng(0), tmp_path / "SMPL.pkl", 0
    sparse = scipy.sparse.csc_matrix(np.eye(4))
    for protocol in (0, 2, 4, 5):
        whole = np.frombuffer(
            pickle.dumps({"J_regressor": sparse, "v": np.zeros((2, 3)), "t": "x", "s": {1}}, protocol), "u1"
        )
        for _ in range(60):
            blob = whole.copy()
            blob[rng.integers(0, len(blob), 1 + rng.integers(3))] = rng.integers(0, 256)
            path.write_bytes(blob.tobytes())
            try:
                load_smpl_pickle(path)
            except InputError as error:
                assert "SMPL.pkl" in str(error) and "\n" not in str(error)
                refused += 1
    assert 100 < refused < 240, refused


def test_what_is_no_regular_file_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.pkl")
    for path in (tmp_path / "fifo.pkl", tmp_path, tmp_path / ("x" * 300), Path("/dev/zero")):
        with pytest.raises(InputError):
            load_pickle(path)
