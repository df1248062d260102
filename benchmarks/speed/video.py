"""Speed and memory of `dpmesh video` on a clip of one person.

    python -m benchmarks.speed.video [CLIP] [--frames 240] [--json OUT.json]
    python -m benchmarks.speed.video CLIP --memory [--every 5] [--json OUT.json]

The clip, by default a window of 640×480 that moves over examples/balance.jpg, is played forwards and backwards until it
has enough frames. Speed: decoding, detection, tracking, network, refining and smoothing, without drawing; the first 16
frames are not counted. On a shared machine CPU seconds repeat, wall time does not: the load is printed too. Detection
and network run in two threads: the frames a second that two idle cores allow are the slower thread's. Memory: peak
resident memory of the whole command, with all files but the overlay, for one minute and for ten.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from benchmarks.machine import commit, machine
from dpmesh import Predictor, Video
from dpmesh.inference.prepared import FramePredictor
from dpmesh.video import estimate
from dpmesh.video.decode import open_frames
from dpmesh.video.frames import Span

EXAMPLE = Path(__file__).parents[2] / "examples" / "balance.jpg"
LEAST_FPS, MOST_GROWTH_MB = 12.0, 60.0


def frames_of(clip: Path | None) -> Iterator[np.ndarray]:
    """Forwards and backwards without end, at most 640×480."""
    if clip is None:
        image = cv2.imread(str(EXAMPLE))[..., ::-1]
        scale = max(700 / image.shape[1], 540 / image.shape[0])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        room = (image.shape[0] - 480, image.shape[1] - 640)
        images = [
            image[round(room[0] * t) :][:480, round(room[1] * t) :][:, :640] for t in np.linspace(0, 1, 60)
        ]
    else:
        images = [frame.image for frame in open_frames(clip).frames(Span())]
    turn = [*images, *images[-2:0:-1]]
    while True:
        yield from turn


def write_clip(clip: Path | None, path: Path, count: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "20", "preset": "ultrafast"}
        for i, image in enumerate(islice(frames_of(clip), count)):
            if i == 0:
                stream.height, stream.width = image.shape[:2]
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"))
            )
        container.mux(stream.encode())


def timed(spent: dict[str, float], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the thread's CPU seconds to spent[name]."""

    def call(*args: Any, **options: Any) -> Any:
        start = time.thread_time()
        try:
            return function(*args, **options)
        finally:
            spent[name] = spent.get(name, 0.0) + time.thread_time() - start

    return call


def speed(clip: Path) -> dict[str, Any]:
    spent: dict[str, float] = {}
    estimate.prepare_image = timed(spent, "detect and track", estimate.prepare_image)
    FramePredictor._forward = timed(spent, "network and refining", FramePredictor._forward)  # type: ignore[method-assign]
    video = Video(clip, Predictor.from_pretrained())
    began: list[float] = []

    def progress(frames: int, people: int) -> None:
        if frames == 16:
            began.extend((time.perf_counter(), time.process_time()))

    load = os.getloadavg()[0]
    tracks = video.tracks(progress)
    count = tracks.frames - 16
    wall, cpu = (time.perf_counter() - began[0]) / count, (time.process_time() - began[1]) / count
    parts = {name: round(seconds / tracks.frames, 4) for name, seconds in spent.items()}
    rest = cpu - sum(parts.values())
    slower = max(parts["detect and track"] + rest / 2, parts["network and refining"] + rest / 2)
    return {
        "frames": count,
        "rows": len(tracks.frame),
        "people": len(tracks),
        "load": round(load, 1),
        "wall_s_per_frame": round(wall, 4),
        "frames_per_s": round(1 / wall, 1),
        "cpu_s_per_frame": round(cpu, 4),
        "parts_cpu_s": {**parts, "decoding, smoothing, the rest": round(rest, 4)},
        "frames_per_s_of_two_idle_cores": round(1 / slower, 1),
        "wanted_frames_per_s": LEAST_FPS,
    }


PEAK = """
import json, resource, sys
from dpmesh.cli.main import main
status = main(sys.argv[1:])
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
sys.exit(status)
"""


def memory(clip: Path | None, folder: Path, every: int) -> dict[str, Any]:
    """Peak MB of the command for one minute and for ten."""
    peaks: dict[str, float] = {}
    for minutes in (1, 10):
        path = folder / f"{minutes}.mp4"
        write_clip(clip, path, 1800 * minutes)
        words = [
            "video",
            path,
            "--out",
            folder / "out",
            "--every",
            every,
            "--save",
            "glb,bvh,trc,amass,csv,plot",
        ]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *map(str, words)], capture_output=True, text=True, check=True
        )
        print(done.stdout, flush=True)
        peaks[f"{minutes} min"] = round(float(done.stdout.splitlines()[-1]), 1)
    growth = peaks["10 min"] - peaks["1 min"]
    return {"every": every, "peak_mb": peaks, "growth_mb": round(growth, 1), "most_growth_mb": MOST_GROWTH_MB}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clip", type=Path, nargs="?")
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        if options.memory:
            measured = memory(options.clip, Path(name), options.every)
        else:
            path = Path(name) / "clip.mp4"
            write_clip(options.clip, path, options.frames + 16)
            measured = speed(path)
    result = {"commit": commit(), "machine": machine(), **measured}
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
