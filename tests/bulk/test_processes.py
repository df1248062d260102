"""`--processes`: what is lost when a process is killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import bulk_fakes
import pytest
from bulk_fakes import (
    EMPTY,
    KILLS,
    KILLS_ONCE,
    RAISES,
    SLOW,
    album,
    no_predictor,
    rows_in,
    touchy_predictor,
    write_photo,
)

from dpmesh.bulk.claims import CLAIMS
from dpmesh.bulk.job import Job, Outcome, load_predictor
from dpmesh.errors import OutputError, WeightsError
from dpmesh.inference.options import ModelOptions, PredictOptions
from dpmesh.inference.people_table import write_tables
from dpmesh.inference.row_parts import ROWS

pytestmark = pytest.mark.slow  # each process imports torch


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(model=ModelOptions(), people=PredictOptions(), out=tmp_path / "out", load=touchy_predictor)


def write_photos(folder: Path, widths: dict[int, int], count: int = 20) -> list[Path]:
    return [write_photo(folder / f"{i:02}.png", widths.get(i, 40), i) for i in range(count)]


def do(job: Job, photos: list[Path], processes: int, formats: tuple[str, ...] = ()) -> list[object]:
    made = album(job, photos, formats)
    return list(made.run(made.sort_out()[2], processes))


def test_results_are_those_of_one_process(tmp_path: Path, job: Job) -> None:
    photos = write_photos(tmp_path / "photos", {3: EMPTY, 4: RAISES})
    for processes in (1, 3):
        own = replace(job, out=tmp_path / f"out{processes}")
        outcomes = do(own, photos, processes)
        assert Counter(outcome.task.path for outcome in outcomes) == dict.fromkeys(photos, 1)  # type: ignore[attr-defined]
        assert write_tables(own.out) == 36
        assert len(list((own.out / ROWS).glob("part-*"))) == 1 and not (own.out / CLAIMS).exists()
    one, three = ((tmp_path / f"out{n}" / "people.jsonl").read_bytes() for n in (1, 3))
    assert one == three


def test_an_image_that_kills_its_process_is_the_only_one_lost(
    tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPMESH_TEST_MARKER", str(tmp_path / "marker"))
    photos = write_photos(tmp_path / "photos", {2: KILLS, 5: KILLS_ONCE})
    outcomes = do(job, photos, 2)
    failed = [one for one in outcomes if isinstance(one, Outcome) and one.error]
    assert [one.task.path for one in failed] == [photos[2]] and "ended twice" in failed[0].error
    assert sum("a worker process ended" in one for one in outcomes if isinstance(one, str)) == 4
    assert Counter(row["image"] for row in rows_in(job.out)) == {
        str(p): 1 if i == 2 else 2 for i, p in enumerate(photos)
    }


@pytest.mark.parametrize("formats", [(), ("json",)])
def test_workers_that_are_killed_lose_nothing(tmp_path: Path, job: Job, formats: tuple[str, ...]) -> None:
    photos = write_photos(tmp_path / "photos", dict.fromkeys(range(40), SLOW), 40)
    made = album(job, photos, formats)
    done: list[Path] = []
    killed = 0
    for outcome in made.run(made.sort_out()[2], 2):
        if isinstance(outcome, Outcome):
            assert not outcome.error
            done.append(outcome.task.path)
        if len(done) in (8, 20) and killed < 2:
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
            killed += 1
    assert killed == 2 and sorted(done) == photos
    if formats:
        assert len(list(job.out.glob("*/scene.json"))) == 40 and not list(job.out.glob(".*part"))
    else:
        assert Counter(row["image"] for row in rows_in(job.out)) == {str(path): 2 for path in photos}


def test_a_model_that_cannot_be_loaded_ends_the_run(tmp_path: Path, job: Job) -> None:
    photos = write_photos(tmp_path / "photos", {})
    with pytest.raises(OutputError, match="end while they load the model"):
        do(replace(job, load=no_predictor), photos, 2)
    with pytest.raises(WeightsError, match="nowhere"):
        do(replace(job, load=load_predictor, model=ModelOptions(weights="nowhere")), photos, 2)
    assert not list(job.out.iterdir())


_RUN = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sys.path.insert(0, sys.argv[1])
from bulk_fakes import album, touchy_predictor
from dpmesh.bulk.job import Job
from dpmesh.inference.options import ModelOptions, PredictOptions
if __name__ == "__main__":
    job = Job(model=ModelOptions(), people=PredictOptions(), out=Path(sys.argv[3]), load=touchy_predictor)
    made = album(job, sorted(Path(sys.argv[2]).iterdir()))
    try:
        for outcome in made.run(made.sort_out()[2], 2):
            print(type(outcome).__name__, flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def start(folder: Path, photos: Path, out: Path) -> "subprocess.Popen[str]":
    script = folder / "run.py"
    script.write_text(_RUN)
    command = [sys.executable, str(script), str(Path(bulk_fakes.__file__).parent), str(photos), str(out)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def group_of(leader: int) -> list[int]:
    """The processes of a process group that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(group) == leader and state != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_is_killed_ends_its_workers_and_goes_on_later(
    tmp_path: Path, job: Job, number: signal.Signals
) -> None:
    photos = write_photos(tmp_path / "photos", dict.fromkeys(range(40), SLOW), 40)
    process = start(tmp_path, tmp_path / "photos", job.out)
    assert process.stdout is not None and process.stderr is not None
    for _ in range(9):
        process.stdout.readline()
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as the terminal does for Ctrl-C
        out, err = process.communicate(timeout=60)
        assert out.endswith("interrupted\n") and "Traceback" not in err, err
        assert os.listdir(job.out) == [ROWS]
    else:
        process.kill()
        process.wait(60)
        process.stdout.close()
        process.stderr.close()
    deadline = time.monotonic() + 30
    while group_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not group_of(process.pid)
    done = len({row["image"] for row in rows_in(job.out)})
    assert 8 <= done < 40
    assert len(do(job, photos, 1)) >= 40 - done
    assert Counter(row["image"] for row in rows_in(job.out)) == {str(path): 2 for path in photos}
    assert os.listdir(job.out) == [ROWS]


def test_two_commands_with_two_processes_each_share_the_images(tmp_path: Path, job: Job) -> None:
    photos = write_photos(tmp_path / "photos", dict.fromkeys(range(60), SLOW), 60)
    runs = [start(tmp_path, tmp_path / "photos", job.out) for _ in range(2)]
    ends = [run.communicate(timeout=120) for run in runs]
    assert not any(err for _, err in ends), ends
    assert Counter(row["image"] for row in rows_in(job.out)) == {str(path): 2 for path in photos}
    assert len(list((job.out / ROWS).glob("part-*"))) == 2  # both did some
