"""`dpmesh bulk` on Ray: what is lost when actors and machines are killed."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bulk_fakes
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from bulk_fakes import EMPTY, KILLS, KILLS_ONCE, RAISES, SLOW, touchy_predictor, write_photo

from dpmesh.bulk.job import Job, load_predictor
from dpmesh.bulk.ray_run import BulkOptions, BulkRun
from dpmesh.cli.main import main
from dpmesh.errors import ConfigError, InputError, OutputError
from dpmesh.inference.options import ModelOptions, PredictOptions
from dpmesh.inference.predictor import Predictor

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A machine of two cores; its processes find the fakes."""
    from ray.cluster_utils import Cluster

    support = str(Path(bulk_fakes.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([support, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("DPMESH_TEST_MARKER", str(tmp_path / "marker"))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20})
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def job() -> Job:
    return Job(model=ModelOptions(), people=PredictOptions(), out=Path(), load=touchy_predictor)


def bulk(job: Job, *sources: object, out: object, **options: Any) -> list[Any]:
    chosen = BulkOptions(**{"part": 4, **options})
    return list(BulkRun(job, [*map(str, sources)], str(out), chosen).run())


def table(out: Path) -> pa.Table:
    return ds.dataset(out).to_table()


def counts(out: Path) -> dict[str, int]:
    return dict(Counter(table(out)["image"].to_pylist()))


def errors(out: Path) -> dict[str, str]:
    found = table(out)
    pairs = zip(found["image"].to_pylist(), found["error"].to_pylist(), strict=True)
    return {image: error for image, error in pairs if error}


def test_mixed_sources_poisoned_images_and_a_restart(tmp_path: Path, job: Job) -> None:
    """The rows are those that the same predictor gives here; what fails is a row; a second run does what is missing."""
    widths = {1: KILLS, 2: RAISES, 3: EMPTY, 6: KILLS_ONCE}
    photos = [write_photo(tmp_path / "album" / f"{i}.png", widths.get(i, 40), i) for i in range(9)]
    photos[5].write_text("no image")
    values = [photos[i].read_bytes() for i in (0, 7)]
    pq.write_table(pa.table({"jpg": values}), tmp_path / "t.parquet")
    missing = tmp_path / "missing.png"
    out = tmp_path / "out"
    bulk(job, tmp_path / "album", missing, tmp_path / "t.parquet", out=out)
    keys = [*map(str, photos), str(missing), *(f"{tmp_path}/t.parquet#{i}" for i in range(2))]
    bad = {str(photos[i]) for i in (1, 2, 5)} | {str(missing)}
    assert counts(out) == {key: 1 if key in bad or key == str(photos[3]) else 2 for key in keys}
    why = errors(out)
    assert (
        set(why) == bad and "ended twice" in why[str(photos[1])] and "no such colour" in why[str(photos[2])]
    )
    assert "no such file" in why[str(missing)] and why[str(photos[5])].startswith(str(photos[5]))
    scene = touchy_predictor(job.model)(photos[0])
    found = table(out).filter(pa.compute.equal(table(out)["image"], str(photos[0])))
    for row, person in zip(found.to_pylist(), scene, strict=True):
        np.testing.assert_allclose(row["joints3d"], person.joints3d, atol=1e-6)
        assert row["people"] == 2 and row["image_sha256"] and row["error"] is None
    before = counts(out)
    added = write_photo(tmp_path / "album" / "0a.png")  # shifts the others in the list
    done = bulk(job, tmp_path / "album", missing, tmp_path / "t.parquet", out=out)
    assert sum(unit["images"] for unit in done) == 1 and counts(out) == before | {str(added): 2}
    write_photo(photos[5])
    write_photo(photos[1])
    bulk(job, tmp_path / "album", out=out, retry_errors=True)
    assert counts(out)[str(photos[5])] == counts(out)[str(photos[1])] == 2
    assert set(errors(out)) == {str(photos[2]), str(missing)}  # that one was not named
    with pytest.raises(OutputError, match="--max-people was 20, is 1"):
        bulk(replace(job, people=PredictOptions(max_people=1)), tmp_path / "album", out=out)


def test_a_machine_that_is_lost_costs_no_row_and_doubles_none(tmp_path: Path, job: Job, cluster: Any) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()
    photos = [write_photo(tmp_path / "album" / f"{i:03}.png", SLOW, i) for i in range(120)]
    run = BulkRun(job, [str(tmp_path / "album")], str(tmp_path / "out"), BulkOptions(part=4))
    processes: set[int] = set()
    lost = False
    for number, unit in enumerate(run.run()):
        processes.add(unit["process"])
        if not lost and number >= 4 and len(processes) > 1:
            cluster.remove_node(node, allow_graceful=False)
            lost = True
    assert lost and counts(tmp_path / "out") == {str(path): 2 for path in photos}
    assert not errors(tmp_path / "out")


def test_actors_that_are_killed_or_replaced_cost_no_row(tmp_path: Path, job: Job) -> None:
    photos = [write_photo(tmp_path / "album" / f"{i:03}.png", SLOW, i) for i in range(60)]
    run = BulkRun(job, [str(tmp_path / "album")], str(tmp_path / "out"), BulkOptions(part=4, recycle=20))
    processes: list[int] = []
    for number, unit in enumerate(run.run()):
        processes.append(unit["process"])
        if number == 2:
            os.kill(unit["process"], signal.SIGKILL)
    assert counts(tmp_path / "out") == {str(path): 2 for path in photos} and not errors(tmp_path / "out")
    assert max(Counter(processes).values()) <= 5  # of four images each: no process lives longer
    assert len(set(processes)) >= 4


def test_reading_is_tried_again(tmp_path: Path, job: Job) -> None:
    """An object store that fails now and then; and one that never answers for one image."""
    photos = [write_photo(tmp_path / "album" / f"{i}.png", 40, i) for i in range(6)]
    names = [f"flaky://{path}" for path in photos]
    (tmp_path / "list.txt").write_text("\n".join([*names, f"flaky://{tmp_path}/album/never.png"]))
    write_photo(tmp_path / "album" / "never.png")
    bulk(job, tmp_path / "list.txt", out=tmp_path / "out")
    assert {k: n for k, n in counts(tmp_path / "out").items() if k in names} == dict.fromkeys(names, 2)
    (error,) = errors(tmp_path / "out").values()
    assert "never.png: cannot be read ([Errno 104] reset by peer" in error


def test_an_output_that_cannot_be_written_ends_the_run(tmp_path: Path, job: Job) -> None:
    for i in range(6):
        write_photo(tmp_path / "album" / f"{i}.png", SLOW, i)
    run = BulkRun(job, [str(tmp_path / "album")], f"flaky://{tmp_path}/full", BulkOptions(part=2))
    start = time.monotonic()
    with pytest.raises(OutputError, match="No space left"):
        list(run.run())
    assert time.monotonic() - start < 60  # it does not wait for ever


def test_the_shipped_model_gives_the_rows_of_predict(tmp_path: Path) -> None:
    job = Job(model=ModelOptions(), people=PredictOptions(), out=Path(), load=load_predictor)
    examples = Path(__file__).parents[2] / "examples"
    image = examples / "two_people.jpg"
    bulk(job, image, out=tmp_path / "out")
    scene = Predictor.from_pretrained()(image)
    rows = table(tmp_path / "out").to_pylist()
    for row, person in zip(rows, scene, strict=True):
        np.testing.assert_allclose(row["joints3d"], person.joints3d, atol=2e-5)
        np.testing.assert_allclose(row["betas"], person.betas, atol=1e-4)


def test_a_cluster_without_room_is_refused_and_nothing_is_left(tmp_path: Path, job: Job) -> None:
    photo = write_photo(tmp_path / "album" / "a.png")
    with pytest.raises(ConfigError, match=r"room for no actor \(it has 1 CPU, 0 GPU\)"):
        bulk(job, photo, out=tmp_path / "out", gpus=0.5)
    with pytest.raises(InputError, match="no such file"):
        bulk(job, tmp_path / "none.txt", out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = [write_photo(tmp_path / "album" / f"{i}.png", EMPTY) for i in range(3)]
    photos[1].write_text("no image")
    words = ["bulk", str(tmp_path / "album"), "--out", str(tmp_path / "out"), "--thumbnails"]
    assert main([*words, "--log-json", "-q"]) == 1
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in err.splitlines()]
    assert out == "" and [event["event"] for event in events] == ["start", "error", "unit", "end"]
    assert events[2]["images"] == 3 and str(photos[1]) in events[1]["error"]
    assert [bool(data) for data in table(tmp_path / "out")["thumbnail"].to_pylist()].count(True) == 2
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "3 images have their rows, 1 of them failed (--retry-errors)" in err
