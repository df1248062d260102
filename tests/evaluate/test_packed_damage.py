"""Damaged shards under evaluation: an error of one line, or a counted person."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from packed_people import AT, SMALL, Body, Crowd, people, true_prediction

from dpmesh.data import pack as packing
from dpmesh.data import shards
from dpmesh.data.annotation import Annotation
from dpmesh.data.pack import pack
from dpmesh.errors import InputError
from dpmesh.evaluate.packed import open_packed
from dpmesh.evaluate.results import predicted, score


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"record_id": ["a"]}, ""),
        ({"record_id": "a\nb"}, "no printable text"),
        ({"fit_valid": None}, ""),
        ({"betas_valid": 0.5}, "betas_valid"),
        ({"K": [[1, 2, 3]]}, "cannot reshape"),
        ({"box": "x"}, "could not convert"),
    ],
)
def test_a_damaged_record_is_one_line(
    records: Path, change: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = shards.from_plain
    monkeypatch.setattr(
        shards, "from_plain", lambda data, *rest, **more: plain({**data, **change}, *rest, **more)
    )
    with pytest.raises(InputError, match=rf"person 0: .*record.*{message}") as error:
        open_packed(records)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("count", [10**30, -1, 1.5, None, "x", True])
def test_a_damaged_manifest_is_one_line_and_does_not_hang(records: Path, count: object) -> None:
    manifest = json.loads((records / "pack.json").read_text())
    manifest["sets"]["walk-test"]["shards"] = count
    (records / "pack.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"pack\.json: the number of shards of walk-test is damaged"):
        open_packed(records)
    manifest["sets"]["walk-test"]["shards"] = 90_000
    (records / "pack.json").write_text(json.dumps(manifest))
    with pytest.raises(
        InputError, match=r"pack\.json: walk-test has far fewer shards than the manifest's 90,000"
    ):
        open_packed(records)
    (records / "pack.json").write_text('{"sets": [1]}')
    with pytest.raises(InputError, match="no manifest of packed people"):
        open_packed(records)


def test_an_index_that_points_outside_is_one_line(records: Path) -> None:
    path = records / "walk-test-00000.json"
    table = json.loads(path.read_text())
    table["people"][0][0] = -1
    path.write_text(json.dumps(table))
    with pytest.raises(
        InputError, match=r"walk-test-00000\.tar: this shard is torn: its index is missing or damaged"
    ):
        open_packed(records)


@pytest.mark.parametrize("field", ["joints3d", "K", "box", "joints2d", "joints3d_valid"])
def test_a_record_with_nan_is_the_records_fault(
    crowd: Crowd, tmp_path: Path, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In shards of another program: packing leaves such a record out, training refuses it, the evaluation counts and
    names it."""
    packed = people(crowd, tmp_path)
    spoiled = getattr(packed[2], field).copy()
    spoiled.flat[AT[3] if field.startswith("joints") else 0] = np.nan
    whole, packed[2] = packed[2], replace(packed[2], **{field: spoiled})
    assert pack(packed, tmp_path / "ours", "walk-test", SMALL).skipped.keys() == {whole.record_id}
    census = open_packed(tmp_path / "ours").census
    assert census.persons == 2 and census.left_out["left out when packed"] == 1

    def to_plain(person: Annotation) -> dict:
        return written(person) | ({field: spoiled.tolist()} if person.record_id == whole.record_id else {})

    written = packing.to_plain
    monkeypatch.setattr(packing, "to_plain", to_plain)
    encoder = SimpleNamespace(dumps=lambda content, **_: json.dumps(content))  # admits NaN
    monkeypatch.setattr(packing, "json", encoder)
    pack([*packed[:2], whole, *packed[3:]], tmp_path / "mine", "walk-test", SMALL)
    with pytest.raises(InputError, match="not finite"):
        shards.ShardSource(tmp_path / "mine", "walk", "test").sample(2, np.random.default_rng(0))
    source = open_packed(tmp_path / "mine")
    persons = source.persons(range(len(source)))
    assert len(source) == 3 and not persons.fallbacks
    predictions = true_prediction(crowd, source, range(len(source)), "crop")
    measure = source.protocol.measure
    rows = score(
        measure, range(len(source)), persons, predicted(measure, Body(crowd, "crop"), predictions, persons)
    )
    assert [str(name) for name in rows.ids[rows.unusable]] == [whole.record_id] and not rows.failed.any()
    assert np.isfinite(rows.mpjpe[~rows.unusable]).all()
