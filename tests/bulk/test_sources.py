"""What `dpmesh bulk` reads and writes, without Ray."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from bulk_fakes import write_photo

from dpmesh.bulk.output import (
    PROVENANCE,
    THUMBNAIL,
    THUMBNAILS,
    check_output,
    done_keys,
    drop_errors,
    part_name,
    parts_of,
    start_output,
    write_part,
)
from dpmesh.bulk.sources import Unit, items_of, list_units
from dpmesh.bulk.storage import place_of, write
from dpmesh.errors import ConfigError, InputError, OutputError
from dpmesh.inference.people_rows import ROW_COLUMNS, error_row

PNG = b"\x89PNG not decoded here"


def write_tar(path: Path, names: list[str], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(PNG) + len(name)
            tar.addfile(member, io.BytesIO(PNG + name.encode()))
    return path


def content(units: list[Unit]) -> dict[str, bytes]:
    return {item.key: item.read() for unit in units for item in items_of(Unit.from_json(unit.as_json()))}


def units(*sources: object, done: dict[str, str] | None = None, **options: object) -> list[Unit]:
    named = {"images": 4, "image_column": "", "key_column": ""} | options
    return list_units([*map(str, sources)], done or {}, **named)  # type: ignore[arg-type]


def test_folders_lists_and_uris_name_the_same_images(tmp_path: Path) -> None:
    album = tmp_path / "album"
    for name in ("b.png", "a.png", "sub/c.jpg", ".hidden.png", "notes.md"):
        write_photo(album / name)
    assert list(content(units(album))) == [str(album / name) for name in ("a.png", "b.png")]
    deep = content(units(album, recursive=True))
    assert set(deep) == {str(album / name) for name in ("a.png", "b.png", "sub/c.jpg")}
    for scheme in ("file://", "local://"):  # pyarrow's, fsspec's
        uris = content(units(f"{scheme}{album}", recursive=True))
        assert uris == {f"{scheme}{key}": data for key, data in deep.items()}
    lines = ["# mine", str(album / "a.png"), f"file://{album}/b.png", str(album / "sub"), ""]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    assert list(content(units(tmp_path / "list.txt", album / "a.png"))) == [
        lines[1],
        lines[2],
        str(album / "sub/c.jpg"),
    ]
    assert [len(unit.names) for unit in units(album, images=1)] == [1, 1]
    odd = album / "caf\udce9.png"
    write_photo(odd)
    assert list(content(units(album)))[2].endswith("caf\\udce9.png")


def test_shards(tmp_path: Path) -> None:
    names = ["0001.jpg", "0001.json", "deep/0002.png", "0002.cls", "0001.jpg"]
    plain, zipped = write_tar(tmp_path / "s-0.tar", names), write_tar(tmp_path / "s-1.tar.gz", names, "w:gz")
    for path in (plain, zipped):
        found = content(units(path))
        assert list(found) == [f"{path}/0001.jpg", f"{path}/deep/0002.png", f"{path}/0001.jpg#2"]
        assert found[f"{path}/deep/0002.png"] == PNG + b"deep/0002.png"
        done = dict.fromkeys([f"{path}/0001.jpg", "another.tar/0001.jpg"], "")
        assert list(content(units(path, done=done))) == [*found][1:]
        assert units(path, done={str(path): "is damaged"}) == []
    data = plain.read_bytes()
    plain.write_bytes(data[:2600])  # within the third member
    items = items_of(units(plain)[0])
    assert next(items).read() == PNG + b"0001.jpg"
    with pytest.raises(InputError, match=r"0002.png: is |s-0.tar: the shard is damaged"):
        for item in items:
            item.read()


def test_parquet(tmp_path: Path) -> None:
    values = [PNG + bytes([i]) for i in range(7)]
    plain, nested = tmp_path / "plain.parquet", tmp_path / "nested.parquet"
    ids = [f"id{i}" for i in range(7)]
    pq.write_table(pa.table({"id": ids, "jpg": values, "text": ids}), plain, row_group_size=3)
    structures = [{"bytes": value, "path": None} for value in values[:2]] + [None]
    pq.write_table(pa.table({"photo": structures}), nested)
    assert [unit.group for unit in units(plain)] == [0, 1, 2]
    assert content(units(plain)) == {f"{plain}#{i}": value for i, value in enumerate(values)}
    assert content(units(plain, image_column="jpg", key_column="id")) == dict(zip(ids, values, strict=True))
    assert list(content(units(plain, key_column="id", done={"id1": "", "id5": ""}))) == [
        "id0",
        "id2",
        "id3",
        "id4",
        "id6",
    ]
    assert list(content(units(plain, done={f"{plain}#4": ""}))) == [
        f"{plain}#{i}" for i in (0, 1, 2, 3, 5, 6)
    ]
    items = list(items_of(units(nested, image_column="photo")[0]))
    assert items[1].read() == values[1]
    with pytest.raises(InputError, match="NoneType, not the bytes of an image"):
        items[2].read()
    for options, why in (({}, "no column of images"), ({"image_column": "x"}, "no column 'x'")):
        with pytest.raises(InputError, match=why):
            content(units(nested, **options))
    nested.write_text("no parquet")
    with pytest.raises(InputError, match=r"nested\.parquet: cannot be read"):
        units(nested)


def test_sources_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, why in ((tmp_path / "empty", "no image"), (tmp_path / "none.txt", "no such file")):
        with pytest.raises(InputError, match=why):
            units(source)
    with pytest.raises(ConfigError, match="scheme that is not known"):
        units("nosuch://bucket/a.jpg")
    assert len(units(tmp_path / "none.jpg")) == 1  # a row of its own, later
    with pytest.raises(InputError, match="no such file"):
        content(units(tmp_path / "none.jpg"))


@pytest.mark.parametrize("scheme", ["", "file://", "local://"])
def test_output_is_a_typed_data_set_that_is_resumed(tmp_path: Path, scheme: str) -> None:
    out = place_of(f"{scheme}{tmp_path}/out")
    start_output(out, {"flip": False})
    write_part(out, part_name("0" * 16, 0), [error_row("a", "broken"), error_row("b", "broken")])
    write_part(out, part_name("1" * 16, 0), [error_row("c", "broken") | {"error": None}])
    write(out / ".tmp-part-x.123", b"left by a killed writer")
    start_output(out, {"flip": False})
    assert not list((tmp_path / "out").glob(".tmp*"))
    check_output(out, {"flip": False})
    with pytest.raises(OutputError, match="--flip was off, is on"):
        check_output(out, {"flip": True})
    assert dict(done_keys(out)) == {"a": "broken", "b": "broken", "c": ""}
    table = ds.dataset(tmp_path / "out").to_table()  # any reader ignores the other files
    assert table.column_names == list(ROW_COLUMNS) and table.num_rows == 3
    kinds = table.schema
    assert kinds.field("people").type == pa.int32() and not kinds.field("image").nullable
    assert kinds.field("joints3d").type == pa.list_(pa.list_(pa.float32())) and kinds.field("error").nullable
    assert drop_errors(out, lambda key: key == "b") == 1 and dict(done_keys(out)) == {"a": "broken", "c": ""}
    assert drop_errors(out, lambda key: True) == 1 and dict(done_keys(out)) == {"c": ""}
    assert len(parts_of(out)) == 2 and ds.dataset(tmp_path / "out").to_table().num_rows == 1
    assert set(json.loads((tmp_path / "out" / PROVENANCE).read_text())["columns"]) == set(ROW_COLUMNS)


def test_an_output_has_thumbnails_throughout_or_nowhere(tmp_path: Path) -> None:
    for name, size in (("old", {}), ("none", {THUMBNAILS: None}), ("with", {THUMBNAILS: 256})):
        start_output(place_of(str(tmp_path / name)), size)
    check_output(place_of(str(tmp_path / "old")), {THUMBNAILS: None})
    with pytest.raises(OutputError, match="--thumbnails was not set, is 256"):
        check_output(place_of(str(tmp_path / "none")), {THUMBNAILS: 256})
    with pytest.raises(OutputError, match="--thumbnails was 256, is not set"):
        check_output(place_of(str(tmp_path / "with")), {THUMBNAILS: None})
    assert THUMBNAIL in json.loads((tmp_path / "with" / PROVENANCE).read_text())["columns"]


def test_a_folder_of_the_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.md").write_text("mine")
    with pytest.raises(OutputError, match="not of dpmesh bulk"):
        check_output(place_of(str(tmp_path)), {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.md"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        write(place_of(str(tmp_path / "out")) / "part", b"x")
    assert len(list(tmp_path.iterdir())) == 1
