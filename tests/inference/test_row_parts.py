"""Streamed rows: torn writes, several writers, removal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpmesh.errors import InputError, OutputError
from dpmesh.inference.people_rows import COLUMNS, ROW_COLUMNS, error_row
from dpmesh.inference.row_parts import ROWS, RowIndex, RowWriter, drop, rows_folder


def rows(image: str, people: int) -> list[dict[str, object]]:
    """As many rows as people, with texts that a reader could take for columns."""
    plain = dict.fromkeys(ROW_COLUMNS) | {
        "image": image,
        "people": people,
        "run": 'run, "score": 1',
        "image_sha256": "ab",
    }
    return [plain | {"person": i if people else None, "score": 0.5} for i in range(max(people, 1))]


def parts(out: Path) -> list[Path]:
    return sorted((out / ROWS).glob("part-*.jsonl"))


def index(out: Path) -> RowIndex:
    made = RowIndex(out)
    made.update()
    return made


def test_the_first_columns_come_before_the_score() -> None:
    """The index reads no further."""
    assert list(ROW_COLUMNS)[:7] == ["image", "error", "people", "result", "image_sha256", "run", "person"]
    assert set(ROW_COLUMNS) == {*COLUMNS, "error", "people"} and list(ROW_COLUMNS)[7] == "score"


def test_what_is_put_is_read(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path)
    assert not (tmp_path / ROWS).exists()  # nothing before the first row
    writer.put(rows("a", 2), ("run-0123456789ab", {"options": {"flip": True}}))
    reader = index(tmp_path)
    assert set(reader.entries) == {"a"}
    writer.put(rows("b", 0))
    writer.put([error_row("c", "is broken", "c")])
    reader.update()
    assert set(reader.entries) == {"a", "b", "c"} and reader.entries["c"].error == "is broken"
    assert reader.entries["a"].run == 'run, "score": 1' and reader.entries["a"].sha256 == "ab"
    writer.close()
    assert [row["image"] for row in reader.rows(iter("bac"))] == ["b", "a", "a", "c"]
    assert reader.runs() == {"run-0123456789ab": {"options": {"flip": True}}}
    assert sorted(p.name for p in (tmp_path / ROWS).iterdir())[0] == "columns.json"  # no lock is left
    for line in parts(tmp_path)[0].read_text().splitlines():
        assert list(json.loads(line)) == list(ROW_COLUMNS)


def test_a_part_that_was_cut_off_anywhere_has_the_images_before(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path)
    sizes = [0]
    for name, people in (("a", 2), ("b", 0), ("c", 3)):
        writer.put(rows(name, people))
        sizes.append(parts(tmp_path)[0].stat().st_size)
    writer.close()
    whole = parts(tmp_path)[0].read_bytes()
    for cut in range(0, len(whole), 7):
        parts(tmp_path)[0].write_bytes(whole[:cut])
        complete = sum(cut >= size for size in sizes[1:])
        assert list(index(tmp_path).entries) == list("abc")[:complete], cut


def test_a_full_disk_leaves_no_half_image(tmp_path: Path) -> None:
    script = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from dpmesh.errors import OutputError\nfrom dpmesh.inference.people_rows import error_row\n"
        "from dpmesh.inference.row_parts import RowWriter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))\n"
        "writer, count = RowWriter(Path(sys.argv[1])), 0\n"
        "try:\n"
        "    while True: writer.put([error_row(f'{count}', 'x' * 300)]); count += 1\n"
        "except OutputError as error: print(count, error)\n"
        "writer.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    count, text = done.stdout.split(" ", 1)
    assert "cannot be written (" in text and "goes on where it was" in text, done.stderr
    assert len(index(tmp_path).entries) == int(count) > 2
    assert parts(tmp_path)[0].read_bytes().endswith(b"\n")


def test_dropped_rows_are_gone_and_the_others_stay(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path)
    for name in "abc":
        writer.put(rows(name, 2))
    writer.close()
    reader = index(tmp_path)
    other = RowWriter(tmp_path)
    other.put([error_row("d", "broken")])
    assert drop(tmp_path, ["b", "d", "z"]) == ["d"]  # that run is still going on
    reader.update()
    assert set(reader.entries) == {"a", "c", "d"}  # a reader that knew the old part
    other.close()
    assert drop(tmp_path, ["d"]) == [] and set(index(tmp_path).entries) == {"a", "c"}
    assert [row["person"] for row in reader.rows(iter("ac"))] == [0, 1, 0, 1]


def test_an_image_that_succeeds_counts_before_one_that_failed(tmp_path: Path) -> None:
    for made in ([error_row("a", "broken")], rows("a", 2), [error_row("a", "broken")]):
        writer = RowWriter(tmp_path)
        writer.put(made)
        writer.close()
    assert index(tmp_path).entries["a"].error == ""
    assert len(list(index(tmp_path).rows(iter("a")))) == 2


def test_a_folder_of_the_user_stays(tmp_path: Path) -> None:
    (tmp_path / ROWS).mkdir()
    (tmp_path / ROWS / "part-00000000.jsonl").write_text("mine")
    with pytest.raises(OutputError, match="not written by dpmesh"):
        RowIndex(tmp_path)
    with pytest.raises(OutputError, match="not written by dpmesh"):
        RowWriter(tmp_path)
    assert os.listdir(tmp_path / ROWS) == ["part-00000000.jsonl"]


def test_a_damaged_part_is_an_error(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path)
    writer.put(rows("a", 2))
    writer.close()
    assert rows_folder(tmp_path).is_dir()
    parts(tmp_path)[0].write_text("{\n")
    with pytest.raises(InputError, match=r"part-.*damaged"):
        index(tmp_path)
