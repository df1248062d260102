"""Damaged, hand-edited and hostile shards: one line that names the file, nothing of the user's overwritten."""

import hashlib
import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpmesh.cli.main import main
from dpmesh.data import open_source
from dpmesh.data.annotation import Annotation
from dpmesh.data.fits import FitBodies
from dpmesh.data.pack import PackConfig, pack
from dpmesh.data.shards import read_manifest
from dpmesh.data.sources import read_folder
from dpmesh.errors import ConfigError, InputError, OutputError

Sets = tuple[Path, dict[str, Any]]
SMALL = PackConfig(per_shard=2, quality=95)


@pytest.fixture(scope="module")
def people(sets: Sets, bodies: FitBodies) -> list[Annotation]:
    return read_folder("muco", sets[0], bodies=bodies).people


@pytest.fixture(scope="module")
def whole(people: list[Annotation], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "shards"
    pack(people, folder, "muco-train", SMALL)
    return folder


@pytest.fixture
def packed(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "shards"))


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed))


def put(*keys: Any) -> Callable[[Any], None]:
    """A change: the last of the keys becomes the value at the place that the others name."""
    *at, last, value = keys

    def change(content: Any) -> None:
        for key in at:
            content = content[key]
        content[last] = value

    return change


SET = ("sets", "muco-train")


@pytest.mark.parametrize(
    "change",
    [
        put("sets", []),
        put("sets", None),
        put("format", 1),
        put("format", 3),
        put("format", "2"),
        put("sets", "muco-train", None),
        put("sets", "../../x-train", {"shards": 1}),
        put("sets", "/etc/x-train", {"shards": 1}),
        put(*SET, "shards", 10**9),
        put(*SET, "shards", -1),
        put(*SET, "shards", "1"),
        put(*SET, "shards", 1.5),
        lambda _: [],
        lambda _: "x" * 100,
    ],
)
def test_a_damaged_manifest_is_named(
    packed: Path, people: list[Annotation], change: Callable[[Any], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    edit(packed / "pack.json", change)
    before = {path.name: path.read_bytes() for path in packed.glob("*-*")}
    for use in (lambda: open_source("muco", packed), lambda: pack(people, packed, "muco-train", SMALL)):
        with pytest.raises(InputError, match=r"pack\.json"):
            use()
    assert main(["data", "check", str(packed)]) != 0
    assert capsys.readouterr().err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in packed.glob("*-*")} == before


@pytest.mark.parametrize(
    "change",
    [
        put("bytes", "many"),
        put("bytes", 5),
        put("people", {}),
        put("people", 0, None),
        put("people", 0, 0, -512),
        put("people", 0, 0, 10**12),
        put("people", 0, 1, 10**12),
        put("people", 0, 1, 2**30),
        put("people", 0, 1, 0),
        put("people", 0, 0, 1.0),
        put("people", 0, 0, True),
        put("people", 0, 2, 0),
        put("people", 1, [512, 900, 600, 900, 1]),
        put("skipped", []),
        lambda index: index.pop("sha256") and None,
        lambda index: index["people"].append(index["people"][0]),
        lambda _: [],
    ],
)
def test_a_damaged_index_makes_a_torn_shard(
    packed: Path, people: list[Annotation], change: Callable[[Any], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    edit(packed / "muco-train-00000.json", change)
    with pytest.raises(ConfigError, match="no whole shard"):
        open_source("muco", packed)
    assert main(["data", "check", str(packed)]) == 1
    assert "TORN muco-train-00000.tar: it" in capsys.readouterr().out
    assert pack(people, packed, "muco-train", SMALL).written == 1  # and packing again mends it
    assert len(open_source("muco", packed)) == len(people)


def with_record(packed: Path, change: Callable[[Any], Any]) -> None:
    """The shard with one person whose record is changed, all lengths and checksums being right."""
    tar, path = packed / "muco-train-00000.tar", packed / "muco-train-00000.json"
    index, data = json.loads(path.read_text()), tar.read_bytes()
    start, length, at, size, _ = index["people"][0]
    record = json.loads(data[at : at + size])
    changed = change(record)
    text = json.dumps(record if changed is None else changed).encode()
    data = data[:at] + text
    place = [start, length, at, len(text), zlib.crc32(text, zlib.crc32(data[start : start + length]))]
    index |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "people": [place]}
    tar.write_bytes(data)
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    "change",
    [
        put("joints3d", 3, 1, float("nan")),
        put("fit_joints3d", 3, 1, 1e999),
        put("joints2d", 3, 1, 1e300),
        put("joints2d", [[0.0, 0.0]] * 29),
        put("pose", "none"),
        put("K", 0, 0, 0.0),
        put("K", [[0.0] * 3] * 3),
        put("K", 2, [0.0, 0.0, 0.0]),
        put("box", [5, 5, 5, 5]),
        put("size", [0, 10]),
        put("size", [10**400, 10]),
        put("record_id", None),
        put("record_id", "a\nb"),
        put("record_id", "x" * 5000),
        put("fit_valid", float("nan")),
        put("neighbour_flags", [[0.0] * 17] * 7),
        lambda record: record.pop("betas") and None,
        lambda _: [1, 2],
    ],
)
def test_a_damaged_record_is_the_records_fault(
    packed: Path, change: Callable[[Any], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with_record(packed, change)
    with pytest.raises(InputError, match=r"muco-train-00000\.tar, person 0"):
        open_source("muco", packed).sample(0, np.random.default_rng(0))
    assert main(["data", "check", str(packed)]) == 1
    assert "muco-train-00000.tar, person 0" in capsys.readouterr().out


def test_an_id_of_260_letters_is_one(packed: Path) -> None:
    with_record(packed, put("record_id", "muco/" + "x" * 260))
    assert len(open_source("muco", packed).sample(0, np.random.default_rng(0)).record_id) == 265


def test_files_that_are_not_shards_are_not_overwritten(people: list[Annotation], tmp_path: Path) -> None:
    (tmp_path / "muco-train-00000.tar").write_bytes(b"mine")
    with pytest.raises(OutputError, match="other files"):
        pack(people, tmp_path, "muco-train", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["muco-train-00000.tar"]
    assert (tmp_path / "muco-train-00000.tar").read_bytes() == b"mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        pack(people, tmp_path / "file", "muco-train", SMALL)
    with pytest.raises(OutputError):
        pack(people, tmp_path / ("x" * 300), "muco-train", SMALL)


def test_a_damaged_person_is_skipped_and_named(people: list[Annotation], tmp_path: Path) -> None:
    bad = replace(people[0], joints3d=people[0].joints3d * np.float32(np.nan))
    done = pack([bad, *people[1:]], tmp_path / "out", "muco-train", SMALL)
    assert list(done.skipped) == [bad.record_id] and "not finite" in done.skipped[bad.record_id]
    assert done.people == len(people) - 1


KILLED = """
import os, pickle, sys
from pathlib import Path
from dpmesh.data import pack as module
people, out = pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2])
left, jpeg = [int(sys.argv[3])], module.encode_jpeg
def dies(*arguments):
    left[0] -= 1
    if left[0] < 0:
        os._exit(9)
    return jpeg(*arguments)
module.encode_jpeg = dies
module.pack(people, out, "muco-train", module.PackConfig(per_shard=1, quality=95))
"""


def test_a_kill_leaves_nothing_that_is_taken_for_whole(people: list[Annotation], tmp_path: Path) -> None:
    import pickle

    (tmp_path / "people").write_bytes(pickle.dumps(people))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "people"), str(tmp_path / "out"), "1"]
    assert subprocess.run(command, check=False).returncode == 9
    source = open_source("muco", tmp_path / "out")
    assert len(source) == 1 and list(source.skipped) == ["muco-train-00001.tar"]  # pyright: ignore
    assert any(path.name.endswith(".part") for path in (tmp_path / "out").iterdir())
    done = pack(people, tmp_path / "out", "muco-train", PackConfig(per_shard=1, quality=95))
    assert (done.intact, done.written) == (1, len(people) - 1)
    assert not any(path.name.endswith(".part") for path in (tmp_path / "out").iterdir())
    assert set(read_manifest(tmp_path / "out")["sets"]) == {"muco-train"}
