"""A share of a list of images, for schedulers that start one command for each share."""

import hashlib
import os
import re
from typing import NamedTuple

from dpmesh.errors import ConfigError


class Shard(NamedTuple):
    """Share `number` of `count`, from 1."""

    number: int
    count: int

    def has(self, image: str) -> bool:
        """Whether an image is of this share. By a hash of its path as written: neither the order of a list nor images
        that are added meanwhile move another image to another share."""
        digest = hashlib.sha256(os.fsencode(image)).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1


def parse_shard(text: str) -> Shard:
    """ "2/8" -> Shard(2, 8). Raises ConfigError."""
    match = re.fullmatch(r"(\d{1,7})/(\d{1,7})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"{text!r} is not I/N with I from 1 to N, as 2/8", where="--shard")
    return Shard(int(match[1]), int(match[2]))
