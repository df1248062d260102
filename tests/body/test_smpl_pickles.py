"""SMPL's pickles in the layout of the real ones: read, recognised by content, and refused."""

import io
import os
import pickle
import struct
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from body_arrays import ellipsoid

from dpmesh.body.files import load_body
from dpmesh.errors import InputError
from dpmesh.skeletons import SMPL_PARENTS

V = 6890


def smpl_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    weights = rng.random((V, 24))
    joints = np.zeros((24, V))
    for joint, row in enumerate(joints):
        row[280 * joint : 280 * joint + 40] = rng.random(40)
    vertices, faces = ellipsoid()
    return {
        "v_template": vertices,
        "shapedirs": rng.uniform(-0.1, 0.1, (V, 3, 10)),
        "posedirs": rng.uniform(-0.1, 0.1, (V, 3, 207)).astype(np.float16).astype(np.float64),
        "weights": weights / weights.sum(1, keepdims=True),
        "J_regressor": joints / joints.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, *SMPL_PARENTS[1:]], range(24)], np.uint32),
        "f": faces.astype(np.uint32),
    }


@pytest.fixture
def chumpy() -> Iterator[tuple[type, type]]:
    """Classes under chumpy's names, while a pickle is written; reading must do without them."""

    def fake(module: str, name: str) -> type:
        cls = type(name, (), {"__module__": module})
        sys.modules[module] = types.ModuleType(module)
        setattr(sys.modules[module], name, cls)
        return cls

    sys.modules["chumpy"] = types.ModuleType("chumpy")
    yield fake("chumpy.ch", "Ch"), fake("chumpy.reordering", "Select")
    for module in ("chumpy", "chumpy.ch", "chumpy.reordering"):
        sys.modules.pop(module, None)


def write_smpl(path: Path, arrays: dict[str, np.ndarray], classes: tuple[type, type], protocol: int) -> None:
    ch, select = classes

    def wrap(array: np.ndarray) -> object:
        wrapped = ch()
        wrapped.__dict__.update({"x": array, "_dirty_vars": set(), "_itr": None, "_depends_on_deps": {}})
        return wrapped

    content: dict[str, object] = {**arrays, "bs_type": "lrotmin", "bs_style": "lbs", "J": np.zeros((24, 3))}
    content["J_regressor"] = scipy.sparse.csc_matrix(arrays["J_regressor"])
    content["v_template"], content["posedirs"] = wrap(arrays["v_template"]), wrap(arrays["posedirs"])
    # SMPL selects the first ten of its components: a view of a longer array.
    longer = np.concatenate([arrays["shapedirs"], np.ones((V, 3, 2))], 2)
    view = select()
    kept = np.arange(longer.size).reshape(longer.shape)[..., :10].ravel()
    view.__dict__.update({"a": wrap(longer), "idxs": kept, "preferred_shape": (V, 3, 10)})
    content["shapedirs"] = view
    path.write_bytes(pickle.dumps(content, protocol))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_smpl_pickle(tmp_path: Path, chumpy: tuple[type, type], protocol: int) -> None:
    path, arrays = tmp_path / "SMPL_NEUTRAL.pkl", smpl_arrays()
    if protocol == 0:  # text: keep it short
        arrays["posedirs"] = np.zeros((V, 3, 207), np.float16)
    write_smpl(path, arrays, chumpy, protocol)
    for module in ("chumpy", "chumpy.ch", "chumpy.reordering"):
        del sys.modules[module]
    extra, h36m = tmp_path / "J_regressor_extra.npy", tmp_path / "J_regressor_h36m_correct.npy"
    rows = np.eye(17, V)[:, ::-1]
    np.save(extra, rows[:9])
    np.save(h36m, rows)
    body = load_body(path, h36m=h36m, extra=extra)
    for name in ("v_template", "shapedirs", "posedirs", "weights", "J_regressor"):
        np.testing.assert_array_equal(getattr(body, name), arrays[name].astype(np.float32), err_msg=name)
    np.testing.assert_array_equal(body.faces, arrays["f"])
    assert body.parents == SMPL_PARENTS
    joints30 = body.regressors["joints30"]
    np.testing.assert_array_equal(joints30[:24], body.J_regressor)
    assert joints30[24:29].argmax(1).tolist() == [331, 2802, 6262, 3489, 3990]
    np.testing.assert_array_equal(joints30[29], rows[3].astype(np.float32))
    np.testing.assert_array_equal(body.regressors["h36m17"], rows.astype(np.float32))
    assert load_body(path).regressors["joints30"][29].argmax() == 411  # without the extra file
    with pytest.raises(InputError, match="17×6890"):
        load_body(path, h36m=extra)


def test_old_module_names(tmp_path: Path, chumpy: tuple[type, type]) -> None:
    """Python 2, numpy 1 and an old scipy wrote other names for the same things."""
    path, arrays = tmp_path / "old.pkl", smpl_arrays()
    write_smpl(path, arrays, chumpy, 2)
    data = path.read_bytes()
    for new, old in (
        (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"),
        (b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n"),
        (b"cbuiltins\nset\n", b"c__builtin__\nset\n"),
    ):
        data = data.replace(new, old)
    path.write_bytes(data)
    np.testing.assert_array_equal(load_body(path).weights, arrays["weights"].astype(np.float32))


@pytest.mark.parametrize("components", [10, 300])
def test_smpl_is_recognised_by_content(tmp_path: Path, components: int) -> None:
    """1.0.0 and 1.1.0 as the pickle and as np.savez of its content, under any suffix, with SMPL's unused fields."""
    arrays = smpl_arrays()
    wide = np.concatenate([arrays["shapedirs"], np.ones((V, 3, components - 10), np.float32)], 2)
    sparse = scipy.sparse.csc_matrix(arrays["J_regressor"])
    content = {
        **arrays,
        "shapedirs": wide.astype(np.float32),
        "J_regressor": sparse,
        "J_regressor_prior": sparse,
        "weights_prior": np.zeros((2, 2)),
        "vert_sym_idxs": np.arange(V),
        "bs_type": "lrotmin",
        "joint2num": {"Pelvis": 0},
    }
    (tmp_path / "model.bin").write_bytes(pickle.dumps(content, 2))
    with (tmp_path / "model.pkl").open("wb") as file:
        np.savez(file, **content)
    assert np.load(tmp_path / "model.pkl", allow_pickle=True)["J_regressor"].dtype == object
    for name in ("model.bin", "model.pkl"):
        body = load_body(tmp_path / name)
        np.testing.assert_array_equal(body.J_regressor, arrays["J_regressor"].astype(np.float32))
        np.testing.assert_array_equal(body.shapedirs, arrays["shapedirs"].astype(np.float32))


@pytest.mark.parametrize("layout", ["csc", "csr", "coo"])
def test_sparse_layouts(tmp_path: Path, layout: str) -> None:
    path, arrays = tmp_path / "body.pkl", smpl_arrays()
    for matrix in (scipy.sparse.csc_matrix, scipy.sparse.csc_array):
        sparse = matrix(arrays["J_regressor"]).asformat(layout)
        path.write_bytes(pickle.dumps({**arrays, "J_regressor": sparse}, 4))
        np.testing.assert_array_equal(load_body(path).J_regressor, arrays["J_regressor"].astype(np.float32))


class Command:
    def __init__(self, function: object, *arguments: object) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.parts


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, rf"{os.name}.system"),
        (eval, "builtin.*eval"),
        (io.open, "open"),
        (getattr, "builtin.*getattr"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_foreign_names_are_refused_and_not_run(
    tmp_path: Path, function: object, name: str, protocol: int
) -> None:
    path, mark = tmp_path / "SMPL.pkl", tmp_path / "ran"
    arguments = {os.system: (f"touch {mark}",), io.open: (str(mark), "w")}.get(function, ("1", "real"))  # pyright: ignore[reportArgumentType, reportCallIssue]
    path.write_bytes(pickle.dumps({"v_template": Command(function, *arguments)}, protocol))
    with pytest.raises(InputError, match=rf"SMPL\.pkl.*{name}"):
        load_body(path)
    assert not mark.exists()


def test_the_object_maker_takes_no_other_class(tmp_path: Path) -> None:
    """copyreg._reconstructor is admitted for chumpy's old objects; it must not build anything else."""
    path = tmp_path / "SMPL.pkl"
    path.write_bytes(b"ccopyreg\n_reconstructor\n(cnumpy\nndarray\ncbuiltins\nobject\nNtR.")
    with pytest.raises(InputError, match="damaged"):
        load_body(path)


def test_damaged_pickles(tmp_path: Path, chumpy: tuple[type, type]) -> None:
    path = tmp_path / "SMPL.pkl"
    write_smpl(path, smpl_arrays(), chumpy, 2)
    whole = path.read_bytes()
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"SMPL\.pkl.*(damaged|is empty)"):
            load_body(path)
    for content in ([1, 2], {"v_template": np.zeros((4, 3))}, {"v_template": "text"}):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(InputError, match=r"SMPL\.pkl"):
            load_body(path)
    path.write_bytes(struct.pack("<I", 7) * 100)
    with pytest.raises(InputError, match=r"SMPL\.pkl"):
        load_body(path)
