"""Two Ray nodes, each in a network namespace of its own, joined by one cable that can be pulled.

The file system is that of this machine, for both, but for Ray's own folder. Needs Linux, root, `ip` of iproute2, and a
kernel with veth pairs.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

HEAD, WORKER = "10.213.77.1", "10.213.77.2"
PORT = 6400


def why_not() -> str:
    """Why namespaces cannot be made here; empty where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    if shutil.which("ip") is None:
        return "network namespaces need ip, of iproute2"
    try:
        with _namespaces(f"dpmesh-{os.getpid()}"):
            return ""
    except subprocess.CalledProcessError as error:
        return f"network namespaces cannot be made here: {error.stderr.strip()[:200]}"


@contextmanager
def _namespaces(name: str) -> Iterator[tuple[str, str]]:
    """The head's and the worker's, joined. Whatever runs in them is killed at the end."""
    both = f"{name}-h", f"{name}-w"
    try:
        for space in both:
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
        ends = [("cable", "netns", both[0]), ("cable", "netns", both[1])]
        _ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for space, address in zip(both, (HEAD, WORKER), strict=True):
            _ip("-n", space, "address", "add", f"{address}/24", "dev", "cable")
            _plug(space)
        yield both
    finally:
        for space in both:
            _clear(space)


def _clear(space: str) -> None:
    """End what runs in a namespace, and remove it; its end of the cable goes with it."""
    for _ in range(50):
        listed = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True)
        if not listed.stdout.split():
            break
        for number in listed.stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)
        time.sleep(0.1)
    subprocess.run(["ip", "netns", "delete", space], capture_output=True)


def _clear_old() -> None:
    """What runs that were killed have left."""
    for line in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout.splitlines():
        match = re.match(r"dpmesh-(\d+)-[hw]\b", line)
        if match and not os.path.exists(f"/proc/{match[1]}"):
            _clear(match[0])


def _plug(space: str) -> None:
    """Also a way out, by which Ray recognises the machine's own address."""
    _ip("-n", space, "link", "set", "cable", "up")
    other = WORKER if space.endswith("-h") else HEAD
    _ip("-n", space, "route", "add", "default", "via", other)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class TwoNodes:
    """Ray's head and a worker node. cpus: of each."""

    def __init__(self, spaces: tuple[str, str], folder: Path, environment: Mapping[str, str]) -> None:
        self._spaces, self._folder, self._ray_folder = spaces, folder, folder / "ray"
        self._ray_folder.mkdir()
        # A token of the user's own, in ~/.ray, would be asked for.
        self._environment = {**environment, "RAY_AUTH_MODE": "disabled"}
        self.address = f"{HEAD}:{PORT}"

    def start(self, cpus: tuple[int, int]) -> None:
        common = ["--object-store-memory", str(80 * 2**20), "--disable-usage-stats"]
        head = ["--head", "--port", str(PORT), "--node-ip-address", HEAD, "--temp-dir", str(self._ray_folder)]
        self._ray(0, [*head, "--include-dashboard", "false", "--num-cpus", str(cpus[0]), *common])
        worker = ["--address", self.address, "--node-ip-address", WORKER, "--num-cpus", str(cpus[1])]
        self._ray(1, [*worker, *common])

    def _ray(self, space: int, words: Sequence[str]) -> None:
        done = subprocess.run(
            self._inside(space, [sys.executable, "-m", "ray.scripts.scripts", "start", *words]),
            env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=120,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stdout[-2000:])

    def _inside(self, space: int, words: Sequence[str]) -> list[str]:
        """The command in a namespace. Ray's folder there is that machine's own: with sockets in a common one a process
        would reach the other machine's Ray without the cable."""
        own = self._folder / str(space)
        own.mkdir(exist_ok=True)
        mount = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        enter = ["ip", "netns", "exec", self._spaces[space], "sh", "-c", mount, "sh"]
        return [*enter, str(own), str(self._ray_folder), *words]

    def command(
        self, words: Sequence[str], environment: Mapping[str, str], space: int
    ) -> "subprocess.Popen[str]":
        """A process on the machine of the head (0) or of the worker (1); its errors can be read."""
        null, pipe = subprocess.DEVNULL, subprocess.PIPE
        given = {**self._environment, **environment}
        return subprocess.Popen(
            self._inside(space, words), env=given, stdin=null, stdout=null, stderr=pipe, text=True
        )

    def pull(self) -> None:
        _ip("-n", self._spaces[1], "link", "set", "cable", "down")

    def plug(self) -> None:
        _plug(self._spaces[1])


@contextmanager
def two_nodes(environment: Mapping[str, str], cpus: tuple[int, int]) -> Iterator[TwoNodes]:
    """A running cluster of two machines with so many cores each; all of it ends with the block."""
    _clear_old()
    # Ray has sockets in its folder, whose paths must be short.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        _namespaces(f"dpmesh-{os.getpid()}") as spaces,
    ):
        nodes = TwoNodes(spaces, Path(folder), environment)
        nodes.start(cpus)
        yield nodes
