"""`dpmesh serve` under load, on this machine's loopback: many clients against one at a time.

    python -m benchmarks.speed.service [--clients 32] [--seconds 120] [--alone 30] [--queue N] [--json OUT.json]
    python -m benchmarks.speed.service --soak 600 [--json OUT.json]

The server is a process of its own; the images of examples/ go in turn, JSON comes back. First one client asks, one
image after the other (--alone seconds), then all clients at once, then one client again: the mean of both is the rate
of one at a time, so that a load that drifts does not decide. A client that gets 429 waits as Retry-After says. Any
other answer than 200 and 429 is an error, and is listed. CPU seconds are the server's own. With --soak four clients ask
for so long, and the server's memory is read ten times a minute.
"""

import argparse
import http.client
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import report_result

EXAMPLES = Path(__file__).parents[2] / "examples"
IMAGES = ("park", "two_people", "balance", "behind_tree", "astronaut")
_SOAK_CLIENTS, _READINGS = 4, 6.0
_BOUNDARY = "dpmesh-benchmark"
FORM = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}


class Server:
    """The service in a process of its own."""

    def __init__(self, *flags: str, **more: str) -> None:
        """more: environment variables."""
        words = [sys.executable, "-m", "dpmesh", "serve", "--port", "0", "--no-video", *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.port = int(line.split()[0].rsplit(":", 1)[1])

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Resident, MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def handles(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self.process.wait(60)


class Load:
    """Clients that ask for some seconds; what they got and how long each answer took."""

    def __init__(self, port: int, clients: int, seconds: float) -> None:
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.errors: list[str] = []
        self._port, self._end = port, time.monotonic() + seconds
        self._lock = threading.Lock()
        self._forms = [form_of(EXAMPLES / f"{name}.jpg") for name in IMAGES]
        self._threads = [
            threading.Thread(target=self._client, args=(i,), daemon=True) for i in range(clients)
        ]

    def run(self) -> float:
        """The seconds that it took, until the last answer."""
        start = time.monotonic()
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        return time.monotonic() - start

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _client(self, number: int) -> None:
        rng = random.Random(number)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        turn = number
        while time.monotonic() < self._end:
            start = time.monotonic()
            try:
                form = self._forms[turn % len(self._forms)]
                connection.request("POST", "/v1/predict", form, FORM)
                answer = connection.getresponse()
                body = answer.read()
            except Exception as error:  # noqa: BLE001  whatever a client can meet
                with self._lock:
                    self.errors.append(f"{type(error).__name__}: {error}")
                connection.close()
                continue
            took = time.monotonic() - start
            with self._lock:
                self.statuses[answer.status] += 1
                if answer.status == 200:
                    self.seconds.append(took)
                    turn += 1
                elif answer.status != 429:
                    self.errors.append(f"{answer.status}: {body[:200]!r}")
            if answer.status == 429:
                wait = float(answer.getheader("Retry-After") or 1) * rng.uniform(1, 1.5)
                time.sleep(max(0.0, min(wait, self._end - time.monotonic())))


def form_of(path: Path) -> bytes:
    """An image as the body of a request with the header FORM."""
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n\r\n'
    return head.encode() + path.read_bytes() + f"\r\n--{_BOUNDARY}--\r\n".encode()


def measured(server: Server, clients: int, seconds: float) -> dict[str, Any]:
    """One phase."""
    cpu = server.cpu_seconds()
    load = Load(server.port, clients, seconds)
    wall = load.run()
    done = len(load.seconds)
    middle, slow = np.percentile(load.seconds or [np.inf], [50, 95])
    return {
        "clients": clients,
        "seconds": round(wall, 1),
        "images": done,
        "images_per_s": round(done / wall, 2),
        "p50_s": round(float(middle), 3),
        "p95_s": round(float(slow), 3),
        "server_cpu_s_per_image": round((server.cpu_seconds() - cpu) / max(done, 1), 3),
        "cores_of_server": round((server.cpu_seconds() - cpu) / wall, 2),
        "refused_429": load.statuses[429],
        "errors": load.errors,
        "load_average": round(os.getloadavg()[0], 1),
    }


def soak(server: Server, seconds: float) -> dict[str, Any]:
    """Memory and open files of the server while a few clients ask."""
    load = Load(server.port, _SOAK_CLIENTS, seconds)
    load.start()
    start, readings = time.monotonic(), list[dict[str, float]]()
    while (now := time.monotonic() - start) < seconds:
        readings.append(
            {
                "second": round(now),
                "memory_mb": round(server.memory(), 1),
                "handles": server.handles(),
                "images": len(load.seconds),
            }
        )
        time.sleep(min(_READINGS, max(0.1, seconds - now)))
    third = max(1, len(readings) // 3)
    middle, last = (
        float(np.mean([r["memory_mb"] for r in part]))
        for part in (readings[third : 2 * third], readings[-third:])
    )
    return {
        "seconds": seconds,
        "clients": _SOAK_CLIENTS,
        "images": len(load.seconds),
        "refused_429": load.statuses[429],
        "errors": load.errors,
        "memory_mb_second_third": round(middle, 1),
        "memory_mb_last_third": round(last, 1),
        "growth_mb": round(last - middle, 1),
        "readings": readings[:: max(1, len(readings) // 20)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--alone", type=float, default=30, help="seconds of one client, before and after")
    parser.add_argument("--queue", default="", help="of the server (default: its own)")
    parser.add_argument("--soak", type=float, default=0, help="seconds; in place of the comparison")
    parser.add_argument("--json", help="write the figures here too")
    args = parser.parse_args()
    server = Server(*(["--queue", args.queue] if args.queue else []))
    try:
        measured(server, 1, 3)  # warm
        if args.soak:
            result = {"soak": soak(server, args.soak)}
        else:
            before = measured(server, 1, args.alone)
            many = measured(server, args.clients, args.seconds)
            after = measured(server, 1, args.alone)
            rate = (before["images_per_s"] + after["images_per_s"]) / 2
            single = (before["p50_s"] + after["p50_s"]) / 2
            result = {
                "one_before": before,
                "many": many,
                "one_after": after,
                "throughput_over_one": round(many["images_per_s"] / rate, 2),
                "p95_over_single_p50": round(many["p95_s"] / single, 2),
                "memory_mb": round(server.memory()),
            }
        result["exit_status_after_sigterm"] = server.stop()
    finally:
        server.process.kill()
    report_result(result, args.json)


if __name__ == "__main__":
    main()
