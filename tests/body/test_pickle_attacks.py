"""Hostile pickles: every attack is an error of one line, bounded in memory, and nothing runs."""

import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dpmesh.body import pickle_reader
from dpmesh.body.pickle_reader import read_pickle
from dpmesh.body.unpickle import load_smpl_pickle
from dpmesh.errors import InputError

Refused = Callable[[Path, bytes, int], str]


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def values(*items: object) -> bytes:
    """Plain values, or opcodes (bytes), as a tuple."""
    return b"(" + b"".join(i if isinstance(i, bytes) else pickle.dumps(i, 2)[2:-1] for i in items) + b"t"


def raw(data: bytes) -> bytes:
    """Python 2's bytes."""
    return b"T" + struct.pack("<i", len(data)) + data


def dtype(code: str, *state: object) -> bytes:
    return name("numpy", "dtype") + values(code, 0, 1) + b"R" + values(*state) + b"b"


def array(kind: bytes, shape: object, data: bytes, *, state: int = 1) -> bytes:
    made = name("numpy.core.multiarray", "_reconstruct") + values(name("numpy", "ndarray"), (0,), "b") + b"R"
    return made + values(state, shape, kind, False, data) + b"b"


F8 = dtype("f8", 3, "<", None, None, None, -1, -1, 0)
I8 = dtype("i8", 3, "<", None, None, None, -1, -1, 0)
OBJECT = dtype("O8", 3, "|", None, None, None, -1, -1, 63)
PLAIN_OBJECT = dtype("O8", 3, "|", None, None, None, -1, -1, 0)
LIE = struct.pack("<Q", 0x4141414141414141)


def fields(offset: int, kind: bytes = OBJECT) -> bytes:
    """A dtype of eight bytes whose field x lies elsewhere."""
    inner = (
        b"}"
        + pickle.dumps("x", 2)[2:-1]
        + values(kind, offset)
        + b"s"
        + pickle.dumps("y", 2)[2:-1]
        + values(I8, 0)
        + b"s"
    )
    return dtype("V8", 3, "|", None, ("x", "y"), inner, 8, 1, 0)


def nested(levels: int) -> bytes:
    """A list of twice a list of twice a list ..."""
    return b"]q\x00" + b"".join(
        b"]" + b"h" + bytes([i]) + b"ah" + bytes([i]) + b"aq" + bytes([i + 1]) for i in range(levels)
    )


ATTACKS = {
    "object under integer": array(fields(0), (4,), raw(LIE * 4)),
    "write outside": array(fields(4096), (4,), raw(bytes(32))),
    "negative offset": array(fields(-64), (4,), raw(bytes(32))),
    "object flags 0": array(PLAIN_OBJECT, (4,), raw(LIE * 4)),
    "objects of bytes": array(OBJECT, (4,), raw(LIE * 4)),
    "a scalar object": name("numpy.core.multiarray", "scalar") + values(OBJECT, raw(LIE)) + b"R",
    "a subarray": array(dtype("V8", 3, "|", values(F8, (9, 9)), None, None, 8, 1, 0), (1,), raw(bytes(8))),
    "raw memory": array(dtype("V8", 3, "|", None, None, None, 8, 1, 0), (1,), raw(bytes(8))),
    "a size of its own": array(dtype("f8", 3, "<", None, None, None, 4096, 1, 0), (1,), raw(bytes(8))),
    "a state twice": array(
        F8[:-1] + b"b" + values(3, "<", None, None, None, -1, -1, 63) + b"b", (1,), raw(bytes(8))
    ),
    "names of another dtype": array(dtype("f8,O8", 3, "<", None, None, None, -1, -1, 0), (1,), raw(bytes(8))),
    "a shape larger than its bytes": array(F8, (10**9,), raw(bytes(8))),
    "a negative shape": array(F8, (-1, -1), raw(bytes(8))),
    "an empty array with an axis of 10^18": array(F8, (0, 10**18), raw(b"")),
    "texts of no length": array(dtype("S0", 3, "|", None, None, None, 0, 1, 0), (10**12,), raw(b"")),
    "too many axes": array(F8, (1,) * 40, raw(bytes(8))),
    "no text": array(dtype("U1", 3, "<", None, None, None, 4, 4, 8), (1,), raw(b"\xff" * 4)),
    "used before it is whole": b"]"
    + name("numpy.core.multiarray", "_reconstruct")
    + values(name("numpy", "ndarray"), (0,), "b")
    + b"Ra",
    "fetched before it is whole": name("numpy.core.multiarray", "_reconstruct")
    + values(name("numpy", "ndarray"), (0,), "b")
    + b"Rq\x00h\x00",
    "a state for a list": b"]}b",
    "a state for a function": name("numpy", "dtype") + values(None, {"__code__": 1}) + b"b",
    "a state for a class": name("scipy.sparse", "csc_matrix") + values(None, {"layout": "coo"}) + b"b",
    "an object of object": name("builtins", "object") + b")R",
    "a call of ndarray": name("numpy", "ndarray") + values((10**10,)) + b"R",
    "arguments for a class": name("scipy.sparse", "csc_matrix") + values(1) + b"\x81",
    "an old class": b"(inumpy\nndarray\n",
    "an old object": b"(" + name("numpy", "ndarray") + b"o",
    "an extension": b"\x82\x01",
    "a persistent id": b"Pname\n",
    "a persistent value": b"K\x01Q",
    "a buffer from outside": b"\x97",
    "a read-only buffer": b"K\x01\x98",
    "a copy of the top": b"K\x012",
    "a text longer than the file": b"\x8d" + struct.pack("<Q", 2**62),
    "bytes longer than the file": b"\x8e" + struct.pack("<Q", 2**63 + 1),
    "a byte array longer than the file": b"\x96" + struct.pack("<Q", 2**40),
    "a negative length": b"T" + struct.pack("<i", -5) + b"abc",
    "a number of a mebibyte": b"\x8b" + struct.pack("<i", 2**20) + bytes(2**20),
    "digits without end": b"L" + b"9" * 5000 + b"L\n",
    "a list in itself": b"]q\x00h\x00a",
    "a dictionary in itself": b"}q\x00K\x01h\x00s",
    "three thousand lists in one another": b"]" * 3_000 + b"a" * 2_999,
    "2^60 elements in 300 bytes": nested(60),
    "an object of 2^60 elements": nested(60) + b")\x81",
    "an array in the order of 2^60 elements": name("numpy._core.numeric", "_frombuffer")
    + values(b"C\x08" + bytes(8), F8, (1,), nested(60))
    + b"R",
    "a list as key": b"}]K\x01s",
    "an array as key": b"}" + array(F8, (1,), raw(bytes(8))) + b"K\x01s",
    "keys that collide": b"}" + values(*range(3)) + b"K\x01s",
    "a long number as key": b"}" + pickle.dumps(2**61 - 1 + 2**61, 2)[2:-1] + b"K\x01s",
    "a key without a value": b"(K\x01d",
    "no mark": b"t",
    "nothing on the stack": b"a",
    "no memo": b"h\x07",
    "another codec": name("_codecs", "encode") + values("cm9ja3M=", "rot13") + b"R",
    "a name of the stack": b"K\x01K\x02\x93",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_an_attack_is_one_line(tmp_path: Path, attack: bytes) -> None:
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    for blob in (attack + b".", b"\x80\x02}" + pickle.dumps("f", 2)[2:-1] + attack + b"s."):
        path.write_bytes(blob)
        tracemalloc.start()
        with pytest.raises(InputError, match=r"SMPL_NEUTRAL\.pkl.*damaged") as caught:
            load_smpl_pickle(path)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
        assert most < 200 * 2**20


def test_a_memo_costs_what_it_holds(tmp_path: Path) -> None:
    """A memo entry far beyond the last, nine bytes of a file, must not allocate the ones between."""
    tracemalloc.start()
    assert read_pickle(b"K\x07r" + struct.pack("<I", 2**30) + b".") == 7
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


HEADS = {
    "empty sets": b"\x8f",
    "empty lists": b"]",
    "empty dictionaries": b"}",
    "tuples": b"K\x01\x85",
    "marks": b"(",
}


@pytest.mark.parametrize("opcode", HEADS.values(), ids=HEADS.keys())
def test_the_number_of_containers_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused_cheaply: Refused, opcode: bytes
) -> None:
    assert pickle_reader.MOST_CONTAINERS <= 1_500_000
    monkeypatch.setattr(pickle_reader, "MOST_CONTAINERS", 2_000)
    message = refused_cheaply(tmp_path / "SMPL.pkl", b"\x80\x02" + opcode * 40_000 + b"}.", 2 * 2**20)
    assert "more than 2,000 lists" in message


def test_the_memo_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused_cheaply: Refused
) -> None:
    assert pickle_reader.MOST_MEMO <= 4_000_000
    monkeypatch.setattr(pickle_reader, "MOST_MEMO", 2_000)
    message = refused_cheaply(tmp_path / "SMPL.pkl", b"\x80\x04N" + b"\x94" * 40_000 + b".", 2 * 2**20)
    assert "more than 2,000 entries" in message


def test_an_array_built_again_and_again_from_the_same_bytes_is_bounded(
    tmp_path: Path, refused_cheaply: Refused
) -> None:
    """The bytes are in the file once; each array has memory of its own."""
    whole = array(b"h\x65", (2**17,), b"h\x64")
    blob = b"\x80\x02" + raw(bytes(2**20)) + b"q\x64" + F8 + b"q\x65]" + (whole + b"a") * 2000 + b"."
    assert "more arrays than it has bytes for" in refused_cheaply(tmp_path / "SMPL.pkl", blob, 2**27)


def test_admitted_names_do_not_change(tmp_path: Path) -> None:
    """A file cannot change the tables of admitted names."""
    before = dict(pickle_reader.CLASSES), dict(pickle_reader.FUNCTIONS)
    for attack in ATTACKS.values():
        with pytest.raises((InputError, *pickle_reader.BROKEN)):
            read_pickle(attack + b".")
    assert before == (pickle_reader.CLASSES, pickle_reader.FUNCTIONS)


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize(
    "asked", ["os.system", "builtins.eval", "numpy.load", "numpy.lib.npyio.load", "numpy.memmap"]
)
def test_a_foreign_name_is_refused_and_nothing_runs(tmp_path: Path, asked: str, protocol: int) -> None:
    module, _, attribute = asked.rpartition(".")
    call = name(module, attribute) if protocol < 4 else values(module, attribute)[1:-1] + b"\x93"
    old = b"(" + pickle.dumps("touch x", 0)[:-1] + f"i{module}\n{attribute}\n".encode()
    for blob in (call + values("x") + b"R.", old + b"."):
        with pytest.raises(InputError, match=rf"asks for {asked}, .*nothing was run"):
            read_pickle(blob)


def test_a_truth_value_of_seven_is_true() -> None:
    kind = dtype("b1", 3, "|", None, None, None, -1, -1, 0)
    flags = read_pickle(array(kind, (3,), raw(b"\x07\x00\x01")) + b".")
    assert flags.view(np.uint8).tolist() == [1, 0, 1]
