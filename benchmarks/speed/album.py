"""Many images, tables only: `--fast --no-refine` in one process and in two, one process, two, Ray, and the service.

    python -m benchmarks.speed.album [--images 300] [--rounds 1] [--modes fast,fast-two,one,two,ray,service]
        [--json OUT.json]

The images are windows of examples/, each with a brightness of its own, so that no two files are equal. For each way:
images a second and CPU seconds an image, without start-up (after the first group of each process is done) and with it;
memory and open files of all its processes, at 5, 25, 50, 75 and 95 % of the run; but for those of `--fast`, whether
the people are those of one process. On a shared machine CPU seconds repeat, wall time does not: the load is printed
too. Machines change their speed: compare ways that took turns (--rounds).
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.dataset as ds

from benchmarks.machine import report_result
from benchmarks.speed.service import FORM, Server, form_of

EXAMPLES = Path(__file__).parents[2] / "examples"
MARK = "DPMESH_ALBUM"
"""Environment variable by which the processes of a run are known, also those that Ray starts."""
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGESIZE") / 2**20
WAYS = {
    "fast": ["predict", "--save", "jsonl", "--fast", "--no-refine"],
    "fast-two": ["predict", "--save", "jsonl", "--fast", "--no-refine", "--processes", "2"],
    "one": ["predict", "--save", "jsonl"],
    "two": ["predict", "--save", "jsonl", "--processes", "2"],
    "ray": ["bulk", "--actors", "2", "--part", "16"],
}
SERVICE, CLIENTS = "service", 4
PEOPLE = "people.jsonl"


def windows() -> Iterator[np.ndarray]:
    """Without end: 90 % of an example and more, at another place and brightness each time."""
    examples = [cv2.imread(str(path)) for path in sorted(EXAMPLES.glob("*.jpg"))]
    rng = np.random.default_rng(0)
    for number in count():
        image = examples[number % len(examples)]
        height, width = (int(side * rng.uniform(0.9, 1)) for side in image.shape[:2])
        y, x = (
            int(rng.integers(0, whole - part + 1))
            for whole, part in zip(image.shape, (height, width), strict=False)
        )
        yield cv2.convertScaleAbs(image[y : y + height, x : x + width], alpha=rng.uniform(0.8, 1.2))


def sample(mark: str) -> dict[int, tuple[float, float, int]]:
    """Process -> CPU seconds, resident MB, open files."""
    found: dict[int, tuple[float, float, int]] = {}
    for entry in os.listdir("/proc"):
        try:
            if (
                not entry.isdigit()
                or f"{MARK}={mark}".encode() not in Path(f"/proc/{entry}/environ").read_bytes()
            ):
                continue
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            pages = int(Path(f"/proc/{entry}/statm").read_text().split()[1])
            files = len(os.listdir(f"/proc/{entry}/fd"))
        except OSError:
            continue
        found[int(entry)] = ((int(fields[11]) + int(fields[12])) / TICK, pages * PAGE, files)
    return found


class Timeline:
    """What the processes with one mark use, twice a second, until the block ends."""

    def __init__(self, mark: str) -> None:
        self.rows = list[tuple[float, float, float, float, int]]()
        """Seconds, CPU s, MB, MB of the largest process, open files."""
        self.start = time.perf_counter()
        self._mark, self._end = mark, threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Timeline":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def now(self) -> float:
        return time.perf_counter() - self.start

    def _read(self) -> None:
        cpu: dict[int, float] = {}
        while not self._end.wait(0.5):
            found = sample(self._mark)
            cpu |= {number: values[0] for number, values in found.items()}
            if found:
                memory = [values[1] for values in found.values()]
                files = sum(values[2] for values in found.values())
                self.rows.append((self.now(), sum(cpu.values()), sum(memory), max(memory), files))


def run(way: str, album: Path, out: Path) -> dict[str, Any]:
    mark = f"{os.getpid()}-{way}"
    with Timeline(mark) as timeline:
        done = (serve if way == SERVICE else command)(way, mark, album, out, timeline)
        seconds = timeline.now()
    return figures(timeline.rows, done, seconds)


def command(way: str, mark: str, album: Path, out: Path, timeline: Timeline) -> list[tuple[float, int]]:
    """Run dpmesh; when how many images were done."""
    verb, *rest = WAYS[way]
    words = [sys.executable, "-m", "dpmesh", verb, str(album), "--out", str(out), *rest, "-q", "--log-json"]
    log = out.with_suffix(".log")
    with log.open("w") as stream:
        environment = {**os.environ, MARK: mark, "RAY_USAGE_STATS_ENABLED": "0"}
        status = subprocess.run(words, stderr=stream, env=environment).returncode
    if status:
        raise RuntimeError(log.read_text()[-2000:])
    events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [(e["t"], e.get("images", 1)) for e in events if e["event"] in ("image", "unit")]


def serve(way: str, mark: str, album: Path, out: Path, timeline: Timeline) -> list[tuple[float, int]]:
    """Ask `dpmesh serve` for every image, a few at a time; when they were answered."""
    server = Server(**{MARK: mark})
    done = list[tuple[float, int]]()
    rows = list[dict[str, Any]]()

    def ask(path: Path) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", "/v1/predict", form_of(path), FORM)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {body[:200]!r}")
        people = json.loads(body)["people"]
        done.append((timeline.now(), 1))
        rows.extend(
            {"image": str(path), "person": i, "joints3d": one["joints3d"]} for i, one in enumerate(people)
        )

    try:
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(ask, sorted(album.iterdir())))
        server.stop()
    finally:
        server.process.kill()
    out.mkdir()
    (out / PEOPLE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sorted(done)


def figures(
    timeline: list[tuple[float, float, float, float, int]], done: list[tuple[float, int]], seconds: float
) -> dict[str, Any]:
    total = sum(images for _, images in done)
    first = next(i for i in range(len(done)) if sum(n for _, n in done[: i + 1]) >= min(32, total / 4))
    begin, end = done[first][0], done[-1][0]
    images = sum(n for _, n in done[first + 1 :])

    def at(when: float, field: int) -> float:
        return min(timeline, key=lambda row: abs(row[0] - when))[field]

    places = [begin + (end - begin) * share for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
    halves = [
        sum(n for t, n in done[first + 1 :] if (t > (begin + end) / 2) == late) for late in (False, True)
    ]
    return {
        "images": total,
        "seconds": round(seconds, 1),
        "images_per_s_with_start": round(total / seconds, 2),
        "images_per_s": round(images / (end - begin), 2),
        "first_and_second_half_images": halves,
        "cpu_s_per_image": round((at(end, 1) - at(begin, 1)) / images, 3),
        "cpu_s_per_image_with_start": round(timeline[-1][1] / total, 3),
        "mb_of_all_processes": [round(at(when, 2)) for when in places],
        "mb_of_the_largest": [round(at(when, 3)) for when in places],
        "open_files": [round(at(when, 4)) for when in places],
    }


def people_in(out: Path) -> Mapping[tuple[str, int], np.ndarray]:
    """(image, person) -> joints3d."""
    if (table := out / PEOPLE).exists():
        rows = map(json.loads, table.read_text().splitlines())
    else:
        rows = (row for row in ds.dataset(out).to_table().to_pylist() if row["person"] is not None)
    return {(row["image"], row["person"]): np.array(row["joints3d"]) for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--modes", default=",".join([*WAYS, SERVICE]))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, list[dict[str, Any]]] = {way: [] for way in options.modes.split(",")}
    with tempfile.TemporaryDirectory() as name:
        album = Path(name) / "album"
        album.mkdir()
        for i, image in zip(range(options.images), windows(), strict=False):
            cv2.imwrite(str(album / f"{i:06}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        reference: Mapping[tuple[str, int], np.ndarray] | None = None
        for turn in range(options.rounds):
            for way, rows in result.items():
                out = Path(name) / f"{way}-{turn}"
                load = os.getloadavg()[0]
                row = {"load": round(load, 1), **run(way, album, out)}
                people = people_in(out)
                row["people"] = len(people)
                row["files_written"] = sum(path.is_file() for path in out.rglob("*"))
                if way.startswith("fast"):
                    pass  # other bodies, and fewer
                elif reference is None:
                    reference = people
                elif people.keys() == reference.keys():
                    furthest = max(float(np.abs(people[key] - reference[key]).max()) for key in people)
                    row["furthest_joint_from_the_first_m"] = furthest
                else:
                    row["other_people"] = len(people.keys() ^ reference.keys())
                rows.append(row)
                print(json.dumps({way: row}), flush=True)
    report_result(result, options.json)


if __name__ == "__main__":
    main()
