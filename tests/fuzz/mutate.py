"""Mutations of files: of plain bytes, and of the structure of JSON, TOML, zip, npy, safetensors, pickle and tar.

All random numbers come from the `random.Random` argument: a seed gives the same file again.
"""

import copy
import io
import json
import pickletools
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

MARKER = "dpmesh-fuzz-was-run"
"""Name of the file that a malicious pickle writes into the working folder when it is executed."""
LONGEST = 2**22
"""Maximum bytes of a mutated file."""

_WORDS = [0, 1, -1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**62, 2**63 - 1]
_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 0.5, 1e308, -1e308, 1e-320, float("nan"), float("inf"), -float("inf"),
    2**31, 2**63, -(2**63) - 1, 10**30, 10**400, "", "x", "0", "1e999", "NaN", "\0", "\ud800", "é" * 300, "x" * 5000,
    "../../../../etc/passwd", "/dev/zero", [], {}, [[]], [{}], [None], [1, 2], ["a"] * 50, {"": None}, {"kind": "?"},
]  # fmt: skip
_TOML = [
    '""', '"x"', "0", "-1", "1", "2147483648", "9223372036854775807", "1e308", "nan", "inf", "-inf", "true", "false",
    "[]", "{}", "[[]]", "[{}]", '["x"]', "1979-05-27", "1979-05-27T07:32:00Z", "07:32:00", '"\\u0000"', "0.0", "-0.5",
    '"../.."', '"/dev/zero"', "[1, 2]", "{ kind = 1 }", "'" + "x" * 3000 + "'",
]  # fmt: skip


def mutate(name: str, data: bytes, rng: random.Random) -> bytes:
    """Mutate a file one to three times, by the structure that its suffix names or as plain bytes."""
    for _ in range(1 + (rng.random() < 0.3) + (rng.random() < 0.1)):
        by_structure = _STRUCTURES.get(PurePosixPath(name).suffix.lower())
        if by_structure is not None and rng.random() < 0.7:
            try:
                data = by_structure(data, rng)
                continue
            except Exception:  # noqa: BLE001
                pass  # an earlier mutation has broken the structure
        data = any_bytes(data, rng)
    return data[:LONGEST]


def any_bytes(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    at, end = rng.randrange(len(out) + 1), rng.randrange(len(out) + 1)
    low, high = min(at, end), max(at, end)
    how = rng.randrange(10)
    if how == 0 or not out:
        return rng.randbytes(rng.choice((0, 1, 7, 100, 5000)))
    if how <= 3:  # headers are near the start
        for _ in range(rng.choice((1, 1, 2, 8, 60))):
            place = rng.randrange(len(out)) if rng.random() < 0.5 else rng.randrange(min(len(out), 300))
            out[place] = rng.choice((out[place] ^ (1 << rng.randrange(8)), rng.randrange(256), 0, 255))
    elif how == 4:
        del out[at:]
    elif how == 5:
        del out[low : min(high, low + rng.choice((1, 4, 40, 4000)))]
    elif how == 6:
        out[at:at] = out[low : low + rng.choice((1, 16, 400, 20000))] * rng.choice((1, 1, 2, 30))
    elif how == 7:
        word, form = rng.choice(_WORDS), rng.choice(("<I", ">I", "<Q", ">Q", "<H", ">H"))
        raw = struct.pack(form, word % 256 ** struct.calcsize(form))
        out[at : at + (len(raw) if rng.random() < 0.7 else 0)] = raw
    elif how == 8:
        out[low:high] = bytes(rng.choice((0, 32, 48, 255)) for _ in range(1)) * (high - low)
    else:
        other = rng.randrange(len(out))
        size = rng.choice((1, 8, 100, 2000))
        out[at : at + size] = out[other : other + size]
    return bytes(out)


def json_text(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.03:
        return rng.choice(
            (b"[" * 100_000, b'{"a":' * 50_000, b"\xef\xbb\xbf" + data, data.decode().encode("utf-16"))
        )
    root = {"": json.loads(data)}
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        _change_value(root, rng)
    return json.dumps(root[""]).encode()


def _change_value(root: Any, rng: random.Random) -> None:
    places: list[tuple[Any, Any]] = []
    rest = [root]
    while rest:
        here = rest.pop()
        keys = list(here) if isinstance(here, dict) else range(len(here))
        places += [(here, key) for key in keys]
        rest += [here[key] for key in keys if isinstance(here[key], dict | list)]
    # Half of the changes at shallow places, which the values of large arrays outnumber.
    here, key = rng.choice(places if rng.random() < 0.5 else places[: max(1, len(places) // 8)])
    how, old = rng.randrange(8), here[key]
    if how <= 3:
        here[key] = copy.deepcopy(rng.choice(_VALUES))
    elif how == 4 and isinstance(old, int | float) and not isinstance(old, bool):
        here[key] = rng.choice((-old, old + 1, old * 1e6, old * 1e30, str(old), [old], int(old) + 0.5))
    elif how == 5 and here is not root:
        del here[key]
    elif how == 6:
        here[key] = (
            [old, copy.deepcopy(old)] if isinstance(here, dict) else copy.deepcopy(rng.choice(_VALUES))
        )
        if isinstance(here, list):
            here.insert(key, copy.deepcopy(old))
    elif isinstance(here, dict) and here is not root:
        here[rng.choice((str(key) + "x", "", str(key).upper(), "__class__"))] = here.pop(key)
    else:
        here[key] = {"a": old}


def toml_text(data: bytes, rng: random.Random) -> bytes:
    lines = data.decode().splitlines()
    for _ in range(rng.choice((1, 1, 2))):
        i = rng.randrange(len(lines))
        how = rng.randrange(6)
        if how <= 2 and "=" in lines[i]:
            lines[i] = lines[i].split("=")[0] + "= " + rng.choice(_TOML)
        elif how == 3:
            del lines[i]
        elif how == 4:
            lines.insert(rng.randrange(len(lines)), lines[i])
        else:
            word = rng.choice(
                ("stages", "data", "losses", "x.y", "stages.0", "data.augment", "seed", "steps", "batch")
            )
            lines.insert(i, rng.choice((f"[{word}]", f"[[{word}]]", f"{word} = {rng.choice(_TOML)}")))
    return "\n".join(lines).encode()


def npy_array(data: bytes, rng: random.Random) -> bytes:
    size = struct.unpack("<H", data[8:10])[0]
    header, body = data[10 : 10 + size].decode("latin1"), data[10 + size :]
    changes: list[Callable[[], str]] = [
        lambda: header.replace(
            "'shape': (", f"'shape': ({rng.choice((0, 1, -1, 7, 10**6, 10**12, 2**63))}, ", 1
        ),
        lambda: header.replace(header.split("'descr': ")[1].split(",")[0], repr(rng.choice(_TYPES)), 1),
        lambda: header.replace("False", "True", 1),
        lambda: header.replace("(", "((" * rng.choice((1, 200)), 1),
        lambda: "{" + "'a': 1, " * 3 + header[1:],
    ]
    new = rng.choice(changes)().rstrip().encode("latin1")
    new += b" " * ((-len(new) - 11) % 64) + b"\n"
    return data[:8] + struct.pack("<H", len(new) % 65536) + new + body


_TYPES = (
    "|O",
    "|S0",
    "|S4",
    "<U3",
    "<U0",
    ">f8",
    "<f2",
    "<c16",
    "|b1",
    "<i8",
    "<u4",
    "|V8",
    "<M8[s]",
    "f4,f4",
    "?",
)


def zip_members(data: bytes, rng: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(item.filename, archive.read(item)) for item in archive.infolist()]
    i, how = rng.randrange(len(members)), rng.randrange(9)
    name, content = members[i]
    if how <= 5:
        members[i] = name, mutate(name, content, rng)
    elif how == 6:
        del members[i]
    elif how == 7:
        members[i] = rng.choice(("../x.npy", name + "x", "", "/abs.npy", members[0][0], "é.npy")), content
    else:
        members.append((name, mutate(name, content, rng)))
    out = io.BytesIO()
    packed = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    import warnings

    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", packed) as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name or "x"), content, packed)
    return out.getvalue() if rng.random() < 0.8 else any_bytes(out.getvalue(), rng)


def safetensors_header(data: bytes, rng: random.Random) -> bytes:
    size = struct.unpack("<Q", data[:8])[0]
    header, body = data[8 : 8 + size], data[8 + size :]
    if rng.random() < 0.15:
        return struct.pack("<Q", rng.choice(_WORDS) % 2**64) + header + body
    if rng.random() < 0.4:
        for old, new in ((b"F32", rng.choice((b"F64", b"F16", b"BF16", b"I64", b"BOOL", b"X9"))),):
            header = header.replace(old, new, rng.choice((1, -1)))
    else:
        header = json_text(header, rng)
    return struct.pack("<Q", len(header)) + header + body


def pickle_program(data: bytes, rng: random.Random) -> bytes:
    """Change its opcodes, or insert calls that write MARKER when they are executed."""
    places = [at for _, _, at in pickletools.genops(data) if at is not None]
    i = rng.randrange(len(places))
    at = places[i]
    end = places[min(i + rng.choice((1, 1, 2, 5)), len(places) - 1)]
    how = rng.randrange(7)
    if how == 0:
        return data[:at] + data[end:]
    if how == 1:
        return data[:at] + data[at:end] * rng.choice((2, 3, 50)) + data[end:]
    if how == 2:
        other = rng.choice(places)
        return data[:at] + data[other : other + max(end - at, 1)] + data[end:]
    if how == 3:
        planted = rng.choice(_CALLS)
        return data[:at] + planted + (b"0" if rng.random() < 0.5 else b"") + data[at:]
    if how == 4:
        return data[:at] + bytes([rng.choice(_OPCODES)]) + data[at + 1 :]
    if how == 5:
        return data[: at + 1] + rng.randbytes(rng.choice((1, 4))) + data[end:]
    words = (
        b"numpy",
        b"ndarray",
        b"_reconstruct",
        b"scipy",
        b"chumpy",
        b"collections",
        b"torch",
        b"OrderedDict",
    )
    there = [word for word in words if word in data]
    if not there:
        return any_bytes(data, rng)
    old = rng.choice(there)
    return data.replace(old, rng.choice(words).ljust(len(old))[: len(old)], rng.choice((1, -1)))


_OPCODES = [ord(op.code) for op in pickletools.opcodes]
_CALLS = [
    f"cposix\nsystem\n(S'touch {MARKER}'\ntR".encode(),
    f"cos\nsystem\n(S'touch {MARKER}'\ntR".encode(),
    f'c__builtin__\nexec\n(S\'open("{MARKER}", "w")\'\ntR'.encode(),
    f'cbuiltins\neval\n(S\'open("{MARKER}", "w")\'\ntR'.encode(),
    f"(S'{MARKER}'\nS'w'\ni__builtin__\nopen\n".encode(),
    f"cnumpy.f2py.diagnose\nrun_command\n(S'touch {MARKER}'\ntR".encode(),
    f"cnumpy\nsave\n(S'{MARKER}'\nI1\ntR".encode(),
    f"cnumpy\nndarray\n(S'{MARKER}'\ntR".encode(),
    b"cnumpy\nndarray\n((I1000000\nI1000000\nttR",
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR",
]


def tar_members(data: bytes, rng: random.Random) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [(item, archive.extractfile(item).read()) for item in archive.getmembers() if item.isfile()]  # type: ignore[union-attr]
    i, how = rng.randrange(len(members)), rng.randrange(8)
    item, content = members[i]
    if how <= 3:
        members[i] = item, mutate(item.name, content, rng)
    elif how == 4:
        del members[i]
    elif how == 5:
        members.append(members[i])
    elif how == 6:
        item.name = rng.choice(("../../x", "/etc/x", "a" * 300, "", "x.json"))
    else:
        item.type = rng.choice(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
        )
        item.linkname = "/dev/zero"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for item, content in members:
            item.size = len(content) if item.isfile() else 0
            archive.addfile(item, io.BytesIO(content))
    return out.getvalue()


_STRUCTURES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": json_text, ".toml": toml_text, ".npy": npy_array, ".npz": zip_members, ".pt": zip_members,
    ".ckpt": zip_members, ".safetensors": safetensors_header, ".pkl": pickle_program, ".tar": tar_members,
}  # fmt: skip
