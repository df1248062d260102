"""Body files: round trip, and refusals of damaged ones."""

import os
import pickle
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dpmesh.body.array_files import load_npz
from dpmesh.body.files import BodyArrays, free_body, load_body, save_body
from dpmesh.errors import InputError, OutputError
from dpmesh.skeletons import SMPL_PARENTS

V = 6890


def same(a: BodyArrays, b: BodyArrays) -> None:
    for item in fields(a):
        x, y = getattr(a, item.name), getattr(b, item.name)
        if item.name == "regressors":
            assert x.keys() == y.keys() and all(np.array_equal(x[k], y[k]) for k in x)
        else:
            np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def body() -> BodyArrays:
    return free_body()


def test_round_trip_and_equal_bytes(tmp_path: Path, body: BodyArrays) -> None:
    save_body(tmp_path / "a.npz", body)
    save_body(tmp_path / "b.npz", body)
    same(load_body(tmp_path / "a.npz"), body)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]  # nothing left aside


def test_unwritable_folder(tmp_path: Path, body: BodyArrays) -> None:
    (tmp_path / "nowhere").write_text("a file")
    with pytest.raises(OutputError, match=r"nowhere.*cannot be written"):
        save_body(tmp_path / "nowhere" / "a.npz", body)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v_template": np.full((6904, 3), np.nan, np.float32)}, "v_template holds NaN"),
        ({"weights": np.zeros((6904, 24), np.float32)}, "rows of weights do not sum to 1"),
        ({"faces": np.array([[0, 1, 6904]])}, "faces name vertices that do not exist"),
        ({"posedirs": np.zeros((6904, 3, 9), np.float32)}, r"posedirs has shape \(6904, 3, 9\)"),
        ({"parents": (-1,) * 24}, "kinematic tree"),
        ({"shapedirs": np.full((6904, 3, 10), 1e30, np.float32)}, r"shapedirs holds 1e\+30"),
        ({"faces": np.array([[0, 1, -1]])}, "faces name vertices that do not exist"),
        ({"faces": np.zeros((0, 3), np.int64)}, "faces have shape"),
        (
            {
                "v_template": np.zeros((0, 3), np.float32),
                "shapedirs": np.zeros((0, 3, 10), np.float32),
                "posedirs": np.zeros((0, 3, 207), np.float32),
                "weights": np.zeros((0, 24), np.float32),
                "J_regressor": np.zeros((24, 0), np.float32),
                "regressors": {},
            },
            "no vertices",
        ),
        ({"regressors": {"joints31": np.zeros((31, 6904), np.float32)}}, "regressor 'joints31' is unknown"),
    ],
)
def test_arrays_that_do_not_fit(body: BodyArrays, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(body, **change)  # pyright: ignore[reportArgumentType]


IMPLAUSIBLE = {
    "height": ({"v_template": lambda b: 100 * b.v_template}, "is 173 m high; a body has 0.4 to 3.0 m"),
    "open mesh": ({"f": lambda b: b.faces[::2]}, r"not closed: \d+% of its edges"),
    "shuffled": ({"f": lambda b: np.random.default_rng(0).permutation(6904)[b.faces]}, "no surface: half of"),
    "weights": ({"weights": lambda b: 3 * b.weights - 2 / 24}, "weights hold -0.0833"),
    "outside": ({"J_regressor": lambda b: 6 * b.J_regressor - 5 / 6904}, r"places a joint \S+ m outside"),
    "joints at one place": (
        {"J_regressor": lambda b: np.full((24, 6904), 1 / 6904, np.float32)}, "all joints within"
    ),
    "shapes": ({"shapedirs": lambda b: 20 * b.shapedirs}, "shapedirs move a vertex by 1.17 m"),
    "poses": ({"posedirs": lambda b: 90 * b.posedirs}, "posedirs move a vertex by"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), IMPLAUSIBLE.values(), ids=IMPLAUSIBLE.keys())
def test_arrays_that_are_no_body_are_refused(tmp_path: Path, body: BodyArrays, change, message: str) -> None:
    np.savez(tmp_path / "body.npz", **(raw_body(body) | {name: make(body) for name, make in change.items()}))
    with pytest.raises(InputError, match=rf"body\.npz.*{message}.*not a body in SMPL's format"):
        load_body(tmp_path / "body.npz")


@pytest.mark.parametrize("scale", [0.3, 1.6])
def test_a_small_child_and_a_giant_are_bodies(tmp_path: Path, body: BodyArrays, scale: float) -> None:
    np.savez(tmp_path / "body.npz", **(raw_body(body) | {"v_template": scale * body.v_template}))
    assert len(load_body(tmp_path / "body.npz").v_template) == 6904


def test_npz_refusals_name_the_file(tmp_path: Path, body: BodyArrays) -> None:
    path = tmp_path / "body.npz"
    save_body(path, body)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"body\.npz"):
        load_body(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"body\.npz"):
        load_body(path)
    np.savez(path, v_template=body.v_template)
    with pytest.raises(InputError, match=r"body\.npz.*fields are missing: shapedirs"):
        load_body(path)
    np.savez(path, v_template=np.array([print], object))
    with pytest.raises(InputError, match=r"body\.npz: the pickle asks for builtins\.print"):
        load_body(path)
    np.savez(path, v_template=np.array([None, "x"], object))
    with pytest.raises(InputError, match=r"body\.npz: v_template is an array of objects"):
        load_body(path)
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(InputError, match=r"body\.npz: holds weights"):
        load_body(path)
    np.save(tmp_path / "body.npy", body.v_template)
    with pytest.raises(InputError, match=r"body\.npy: is a single array"):
        load_body(tmp_path / "body.npy")
    with pytest.raises(InputError, match="no such body file"):
        load_body(tmp_path / "absent.pkl")
    other = tmp_path / "body.obj"
    other.write_bytes(b"v 0 0 0")
    with pytest.raises(InputError, match=r"body\.obj: is not a body file"):
        load_body(other)


def raw_body(body: BodyArrays) -> dict[str, np.ndarray]:
    """A body under SMPL's field names."""
    names = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")
    tree = np.array([(2**32 - 1, *SMPL_PARENTS[1:]), range(24)], np.uint32)
    return {**{name: getattr(body, name) for name in names}, "kintree_table": tree, "f": body.faces}


DAMAGE = {
    "a tree without rows": ({"kintree_table": np.zeros((0, 24), np.int64)}, r"kintree_table is .*\(0, 24\)"),
    "a tree of NaN": ({"kintree_table": np.full((2, 24), np.nan)}, "kintree_table is float64"),
    "a tree out of range": ({"kintree_table": np.full((2, 24), 2**63, np.uint64)}, "kinematic tree"),
    "faces out of range": ({"f": np.full((4, 3), 2**63 + 5, np.uint64)}, "vertices that do not exist"),
    "faces of floats": ({"f": np.full((4, 3), np.nan)}, "f is float64"),
    "numbers too large": ({"v_template": np.full((6904, 3), 1e300)}, "v_template holds NaN or infinity"),
    "a number alone": ({"v_template": np.array(3.0)}, r"v_template is float64 of shape \(\)"),
    "texts": ({"J_regressor": np.full((24, 6904), "a")}, "J_regressor is <U1"),
    "times": ({"weights": np.zeros((6904, 24), "M8[s]")}, "weights is datetime64"),
    "rows for other vertices": ({"J_regressor": np.ones((24, 3))}, r"J_regressor has shape \(24, 3\)"),
    "two shapes": ({"shapedirs": np.zeros((6904, 3, 2))}, r"shapedirs has shape \(6904, 3, 2\)"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_fields_are_one_line(
    tmp_path: Path, body: BodyArrays, change: dict[str, np.ndarray], message: str
) -> None:
    for path in (tmp_path / "body.npz", tmp_path / "body.pkl"):
        raw = raw_body(body) | change
        if path.suffix == ".npz":
            np.savez(path, **raw)  # pyright: ignore[reportArgumentType]
        elif raw["weights"].dtype.kind != "M":  # which the reader of pickles does not take at all
            path.write_bytes(pickle.dumps(raw, 2))
        else:
            continue
        with pytest.raises(InputError, match=rf"body{path.suffix}.*{message}"):
            load_body(path)


def test_an_npz_that_unpacks_to_more_than_a_body_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "body.npz"
    np.savez_compressed(path, v_template=np.zeros(2**18))
    assert path.stat().st_size < 4000
    with pytest.raises(InputError, match=r"body\.npz.*unpacked it would have 2,097,280 bytes"):
        load_npz(path, 2**20)
    # A member that claims more than there is: 10^15 numbers.
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**15},), }}".encode()
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("v_template.npy", header.ljust(127) + b"\n" + bytes(64))
    with pytest.raises(InputError, match=r"not a readable \.npz"):
        load_npz(path)


def test_damage_anywhere_in_an_npz_is_one_line(tmp_path: Path) -> None:
    path, rng = tmp_path / "body.npz", np.random.default_rng(0)
    np.savez_compressed(path, a=np.arange(9), b=np.array([True, False]))
    whole, refused = np.frombuffer(path.read_bytes(), "u1"), 0
    for _ in range(200):
        blob = whole.copy()
        blob[rng.integers(0, len(blob), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(blob.tobytes())
        try:
            load_npz(path)
        except InputError as error:
            assert "body.npz" in str(error) and "\n" not in str(error)
            refused += 1
    assert 100 < refused < 200, refused


def test_a_header_without_its_end_in_an_npz(tmp_path: Path) -> None:
    """numpy's reader of old headers raises tokenize's own error."""
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + b"{'descr': (".ljust(118)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("v_template.npy", header)
    with pytest.raises(InputError, match="not a readable"):
        load_npz(tmp_path / "a.npz")


def test_names_that_no_file_has(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    for name in ("x" * 5000 + ".npz", "a\0b.pkl", "a.npz"):
        with pytest.raises(InputError, match="no such body file"):
            load_body(tmp_path / name)
