"""A frame, which frames are read, and what reads them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from dpmesh.errors import ConfigError

DEFAULT_FPS = 30.0
"""Of a folder of images, which stores none."""


@dataclass(frozen=True, eq=False)
class Frame:
    """index: of the source's frames, from 0. time: seconds after the source's first frame."""

    index: int
    time: float
    image: UInt8[np.ndarray, "h w 3"]
    """RGB, upright."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Which frames are read: from `start` until before `end` (seconds after the first frame), each `every`-th."""

    start: float = 0.0
    end: float = math.inf
    every: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ConfigError(f"start={self.start:g} and end={self.end:g} leave no time", where="start, end")
        if self.every < 1:
            raise ConfigError(f"every={self.every} must be at least 1", where="every")


@runtime_checkable
class FrameSource(Protocol):
    """A source of frames. Iterating opens it, yields the frames of a span in order, and closes it."""

    name: str
    fps: float
    """Frames a second: the average, where the rate varies."""
    length: int | None
    """Frames of the whole source, as its header has it; None where it does not say."""
    live: bool
    """A camera or stream, which can be read once."""
    notes: list[str]
    """What had to be left out, complete after the iteration."""

    def frames(self, span: Span) -> Iterator[Frame]: ...
