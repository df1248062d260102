"""Images of a list into one folder: each once, errors of one image, claims, shards, resuming."""

import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pandas as pd
import pytest
from bulk_fakes import RAISES, SLOW, album, rows_in, touchy_predictor, write_photo
from filelock import FileLock

from dpmesh.bulk.album import Album, Kept
from dpmesh.bulk.claims import CLAIMS, Claims, Shard, parse_shard
from dpmesh.bulk.job import Job, Outcome
from dpmesh.cli.main import main
from dpmesh.errors import ConfigError
from dpmesh.inference.options import ModelOptions, PredictOptions
from dpmesh.inference.people_rows import ROW_COLUMNS
from dpmesh.inference.people_table import write_tables
from dpmesh.inference.row_parts import ROWS


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return [write_photo(tmp_path / "photos" / f"{i:02}.png", shade=i) for i in range(11)]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(model=ModelOptions(), people=PredictOptions(), out=tmp_path / "out", load=touchy_predictor)


def do(made: Album) -> list[Outcome | Kept | str]:
    _, failed, todo = made.sort_out()
    assert not failed
    return list(made.run(todo))


def test_rows_without_folders(photos: list[Path], job: Job) -> None:
    write_photo(photos[3], width=5)  # nobody
    photos[5].write_text("no image")
    write_photo(photos[6], width=RAISES)
    outcomes = do(album(job, photos))
    assert [outcome.task.path for outcome in outcomes] == photos  # type: ignore[union-attr]
    assert os.listdir(job.out) == [ROWS]
    found = rows_in(job.out)
    assert all(list(row) == list(ROW_COLUMNS) for row in found)
    assert Counter(row["image"] for row in found) == {
        str(p): 1 if i in (3, 5, 6) else 2 for i, p in enumerate(photos)
    }
    assert [row["person"] for row in found if row["image"] in (str(photos[3]), str(photos[5]))] == [None] * 2
    errors = {row["image"]: row["error"] for row in found if row["error"]}
    assert set(errors) == {str(photos[5]), str(photos[6])}
    assert "unexpected ValueError: no such colour" in errors[str(photos[6])]
    assert write_tables(job.out, ["jsonl"]) == 16
    table = pd.read_json(job.out / "people.jsonl", lines=True)
    assert table["result"].tolist() == [i for i in (0, 1, 2, 4, 7, 8, 9, 10) for _ in range(2)]
    provenance = json.loads((job.out / "people.provenance.json").read_text())
    assert set(provenance["runs"]) == set(table["run"])


def test_resumed_after_any_number_of_images(photos: list[Path], job: Job) -> None:
    """What failed before is done again, and each image has its rows once."""
    photos[2].write_text("no image")
    run = album(job, photos).run(album(job, photos).sort_out()[2])
    for _ in range(5):
        next(run)
    run.close()  # type: ignore[attr-defined]
    assert os.listdir(job.out) == [ROWS]
    write_photo(photos[2])
    made = album(job, photos)
    kept, failed, todo = made.sort_out()
    assert len(kept) == 4 and not failed and [task.path for task in todo][:2] == [photos[2], photos[5]]
    assert len(list(made.run(todo))) == 7
    assert Counter(row["image"] for row in rows_in(job.out)) == {str(path): 2 for path in photos}
    assert not any(row["error"] for row in rows_in(job.out))
    assert len(album(job, photos).sort_out()[0]) == 11


def test_other_options_and_other_images_are_refused(photos: list[Path], job: Job) -> None:
    do(album(job, photos[:3]))
    write_photo(photos[1], shade=200)
    other = replace(job, people=PredictOptions(max_people=1))
    _, failed, todo = album(other, photos[:4]).sort_out()
    assert [task.path for task in todo] == photos[3:4]
    assert "--max-people was 20, is 1" in failed[photos[0]] and "another image" in failed[photos[1]]
    made = album(other, photos[:4], overwrite=True)
    kept, failed, todo = made.sort_out()
    assert not kept and not failed and len(list(made.run(todo))) == 4
    assert Counter(row["image"] for row in rows_in(job.out)) == {str(path): 1 for path in photos[:4]}


def test_an_image_that_has_a_folder_stays_there(photos: list[Path], job: Job) -> None:
    do(album(job, photos[:2], ("npz",)))
    do(album(job, photos[:4]))
    assert {row["image"] for row in rows_in(job.out)} == {*map(str, photos[2:4])}
    assert (job.out / "00" / "scene.json").exists() and write_tables(job.out) == 8


@pytest.mark.parametrize("formats", [(), ("json",)])
def test_two_commands_share_the_images(photos: list[Path], job: Job, formats: tuple[str, ...]) -> None:
    """Each image is done by one of them, and both know of all at the end."""
    for path in photos:
        write_photo(path, width=SLOW)
    made = [album(job, photos, formats) for _ in range(2)]
    todo = [one.sort_out()[2] for one in made]
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda one, tasks: list(one.run(tasks)), made, todo))
    done = [one.task.path for end in ends for one in end if isinstance(one, Outcome)]
    assert sorted(done) == photos
    assert all(len(end) == len(photos) for end in ends) and not (job.out / CLAIMS).exists()


def test_a_claim_of_another_process_is_waited_for(
    photos: list[Path], job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = Claims(job.out)
    assert claimed.take("01") and not Claims(job.out).take("01")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:  # the other one was killed: its lock ends
            claimed.release("01")

    monkeypatch.setattr("dpmesh.bulk.album.time.sleep", sleep)
    outcomes = do(album(job, photos[:3]))
    assert [o.task.name for o in outcomes if isinstance(o, Outcome)] == ["00", "02", "01"] and len(slept) == 3


def test_a_lock_file_that_was_left_behind_is_free(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    assert claims.take("a")
    (path,) = (tmp_path / CLAIMS).iterdir()
    claims.close()
    assert not path.parent.exists()
    path.parent.mkdir()
    path.touch()
    assert claims.take("a")
    claims.close()
    held = FileLock(path)
    path.parent.mkdir()
    with held:
        assert not claims.take("a")


def test_shards_are_a_partition_that_does_not_move() -> None:
    images = [f"photos/{i}.jpg" for i in range(1000)]
    shares = [[image for image in images if Shard(i, 7).has(image)] for i in range(1, 8)]
    assert sorted(chain(*shares)) == sorted(images) and all(100 < len(share) < 190 for share in shares)
    more = [image for image in sorted([*images, "a.jpg"]) if Shard(3, 7).has(image)]
    assert {*more} - {"a.jpg"} == {*shares[2]}
    assert parse_shard("2/8") == (2, 8)
    for wrong in ("0/8", "9/8", "2", "2/0", "a/b", "-1/8"):
        with pytest.raises(ConfigError, match="I/N"):
            parse_shard(wrong)


def test_shards_of_the_command(
    photos: list[Path], tmp_path: Path, loads: list[ModelOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    for share in ("1/3", "2/3", "3/3"):
        words = [
            "predict",
            str(photos[0].parent),
            "--out",
            str(out),
            "--save",
            "jsonl",
            "--shard",
            share,
            "-q",
        ]
        assert main(words) == 0
    assert capsys.readouterr() == ("", "")
    assert pd.read_json(out / "people.jsonl", lines=True)["image"].tolist() == [*map(str, photos)]


def test_a_shard_knows_the_images_of_the_others(
    photos: list[Path], tmp_path: Path, loads: list[ModelOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    """An entry of an image of another share is not reported as unused."""
    entries = [{"image_id": path.name, "keypoints": [10.0, 10.0, 1.0] * 17} for path in photos]
    keypoints = tmp_path / "keypoints.json"
    keypoints.write_text(json.dumps([*entries, entries[0] | {"image_id": "other.png"}]))
    for share in ("1/2", "2/2"):
        words = [
            "predict",
            str(photos[0].parent),
            "--out",
            str(tmp_path / "o"),
            "--save",
            "jsonl",
            "--shard",
            share,
        ]
        assert main([*words, "--keypoints", str(keypoints)]) == 0
        assert "1 image not among the inputs: other.png" in capsys.readouterr().out


def test_events_as_json(
    photos: list[Path], tmp_path: Path, loads: list[ModelOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    photos[4].write_text("no image")
    words = [
        "predict",
        str(photos[0].parent),
        "--out",
        str(tmp_path / "o"),
        "--save",
        "jsonl",
        "--log-json",
        "-q",
    ]
    assert main(words) == 1
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in err.splitlines()]
    assert out == "" and Counter(event["event"] for event in events) == {
        "start": 1, "image": 10, "error": 1, "end": 1
    }  # fmt: skip
    assert events[-1] | {"t": 0, "seconds": 0} == {
        "event": "end", "t": 0, "images": 10, "people": 10, "errors": 1, "seconds": 0
    }  # fmt: skip
    assert next(e for e in events if e["event"] == "error")["image"] == str(photos[4])
    assert main(words) == 1  # only what failed is done again
    assert len(loads) == 2 and "done before" not in capsys.readouterr().err


def test_a_run_that_fails_at_once_leaves_nothing(photos: list[Path], tmp_path: Path) -> None:
    words = ["predict", str(photos[0].parent), "--out", str(tmp_path / "new" / "o"), "--weights", "nowhere"]
    for more in (["--save", "jsonl"], [], ["--processes", "2"]):
        assert main([*words, *more]) == 1
        assert not (tmp_path / "new").exists(), more
