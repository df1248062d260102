"""Which command does which image: claims, where commands share a folder of results, and shards of a list.

A claim is a lock of the operating system on a file in `.dpmesh-claims`; it ends with the process, however that ends.
Who gets one looks again whether the image is done: the file of a finished image may be gone while another waits for it.
"""

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from dpmesh.errors import ConfigError, OutputError
from dpmesh.io import reason

CLAIMS = ".dpmesh-claims"


class Claims:
    """The claims of this process on images, by the names of their results."""

    def __init__(self, out: Path) -> None:
        self.folder = out / CLAIMS
        self._held: dict[str, FileLock] = {}

    def take(self, name: str) -> bool:
        """Claim an image; False where another process has it. Raises OutputError where no file can be made."""
        path = self.folder / hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
        for _ in range(20):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = FileLock(path, blocking=False)
                lock.acquire()
            except Timeout:
                return False
            except FileNotFoundError:
                continue  # another run that has ended removed the folder
            except OSError as failure:
                fix = "Choose another --out."
                raise OutputError(
                    f"cannot be written ({reason(failure)})", where=str(self.folder), fix=fix
                ) from None
            self._held[name] = lock
            return True
        return False

    def release(self, name: str) -> None:
        """Give an image back. What was made of it must have been written."""
        lock = self._held.pop(name)
        with suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release()

    def close(self) -> None:
        """Give back what is held, and remove the folder where no other run uses it."""
        for name in [*self._held]:
            self.release(name)
        with suppress(OSError):
            self.folder.rmdir()


class Shard(NamedTuple):
    """Share `number` of `total`, from 1."""

    number: int
    total: int

    def has(self, image: str) -> bool:
        """Whether an image is of this share. By a hash of its path as written: neither the order of a list nor images
        that are added meanwhile move another image to another share."""
        digest = hashlib.sha256(os.fsencode(image)).digest()
        return int.from_bytes(digest[:8]) % self.total == self.number - 1


def parse_shard(text: str) -> Shard:
    """ "2/8" -> Shard(2, 8). Raises ConfigError."""
    match = re.fullmatch(r"(\d{1,7})/(\d{1,7})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"{text!r} is not I/N with I from 1 to N, as 2/8", where="--shard")
    return Shard(int(match[1]), int(match[2]))
