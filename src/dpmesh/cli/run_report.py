"""What a run on many images prints, as it goes and at its end: lines, a progress bar, or events as JSON."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpmesh.cli.arguments import count
from dpmesh.cli.streams import say
from dpmesh.errors import ConfigError, printable

if TYPE_CHECKING:
    from rich.console import Console

    from dpmesh.bulk.album import Kept
    from dpmesh.bulk.claims import Shard
    from dpmesh.bulk.work import Outcome

_MOST_ERRORS = 50
"""Errors that are printed again at the end."""


def add_run(parser: argparse.ArgumentParser) -> None:
    """How many processes share the images, which share of them this command does, and what it prints."""
    add = parser.add_argument
    add(
        "--processes",
        type=count,
        default=1,
        metavar="N",
        help="processes that share the images, each with a model of its own (default: 1)",
    )
    add("--shard", type=_shard, metavar="I/N", help="only share I, of 1 to N, of the images")
    add_log(parser)


def add_log(parser: argparse.ArgumentParser) -> None:
    """What a run prints."""
    add = parser.add_argument
    either = parser.add_mutually_exclusive_group()
    either.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    either.add_argument("-v", "--verbose", action="store_true", help="print when each image was done, too")
    add("--log-json", action="store_true", help="one JSON object for each event on stderr, in place of text")


def _shard(text: str) -> "Shard":
    from dpmesh.bulk.claims import parse_shard

    try:
        return parse_shard(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(error.what) from None


class Report:
    """Prints what happens. Errors come at once and, where there are several images, again at the end."""

    def __init__(self, args: argparse.Namespace, total: int, things: str) -> None:
        """total: of images, or of `things`."""
        self.quiet, self.verbose, self.json = args.quiet, args.verbose, args.log_json
        self.total, self.things, self.start = total, things, time.perf_counter()
        self.errors: list[str] = []
        self.done = self.people = 0
        self._write: Callable[[str], None] = say
        self._advance: Callable[[], None] = lambda: None

    def line(self, text: str) -> None:
        """A line on stdout."""
        if not self.quiet:
            self._write(text)

    def note(self, text: str, event: str = "note") -> None:
        """A line on stderr that is no error."""
        if self.json:
            self._event(event, text=text)
        elif not self.quiet:
            say(text, error=True)

    def failed(self, image: str, why: str, *, image_failed: bool = True) -> None:
        """An error. image: the image or input, empty for none."""
        self.errors.append(why)
        if self.json:
            self._event("error", **({"image": image} if image_failed else {}), error=why)
        elif self.total > 1:
            say(f"dpmesh: {' '.join(why.split())}", error=True)

    def outcome(self, outcome: "Outcome") -> None:
        """One image is done, or has failed."""
        path = str(outcome.task.path)
        if outcome.error:
            self.failed(path, outcome.error)
        else:
            self.done += 1
            self.people += outcome.people
            when = f"{time.perf_counter() - self.start:.1f} s: " if self.verbose else ""
            where = f" → {outcome.folder}" if outcome.folder else ""
            self.line(f"{when}{path}: {_summary(outcome)}{where}")
            if self.json:
                self._event("image", image=path, people=outcome.people, result=outcome.folder or None)
        self._advance()

    def kept(self, kept: "Kept") -> None:
        """The result of an image is there already."""
        self.done += 1
        self.line(f"{kept.path}: done before, kept (--overwrite makes it again) → {kept.where}")
        if self.json:
            self._event("kept", image=str(kept.path), result=str(kept.where))

    def unit(self, unit: Mapping[str, Any]) -> None:
        """Some images of a cluster's run are done."""
        for error in unit["errors"]:
            self.failed("", error, image_failed=False)
        self.done += unit["images"]
        self.people += unit["people"]
        names = ("images", "people", "kept", "seconds", "cpu_seconds", "rss_mb", "files", "process")
        if self.json:
            self._event("unit", **{name: unit[name] for name in names})
        elif self.verbose:
            self.line(f"{unit['images']} images with {unit['people']} people in {unit['seconds']:.1f} s")

    def started(self, units: int, actors: int) -> None:
        """A cluster's run begins."""
        if self.json:
            self._event("start", units=units, actors=actors or None)

    def finished(self, out: Path) -> None:
        """All images have had their turn."""
        if self.done > 1:
            self.line(f"{self.done} results in {out}")

    def end(self) -> int:
        """Print the errors again; returns the exit status."""
        seconds = round(time.perf_counter() - self.start, 2)
        if self.json:
            self._event("end", images=self.done, people=self.people, errors=len(self.errors), seconds=seconds)
            return 1 if self.errors else 0
        if self.verbose:
            say(f"{self.done} of {self.total} {self.things} in {seconds:.1f} s", error=True)
        if self.errors and self.total > 1:
            say(f"dpmesh: {len(self.errors)} of {self.total} {self.things} failed:", error=True)
        causes = Counter(self.errors)  # one line for each cause
        for message, images in [*causes.items()][:_MOST_ERRORS]:
            line = " ".join(message.split()) + (f" ({images} images)" if images > 1 else "")
            say(f"  {line}" if self.total > 1 else f"dpmesh: {line}", error=True)
        if len(causes) > _MOST_ERRORS:
            say(f"  and {len(causes) - _MOST_ERRORS} more, above", error=True)
        return 1 if self.errors else 0

    def _event(self, event: str, **fields: object) -> None:
        seconds = round(time.perf_counter() - self.start, 3)
        print(json.dumps({"event": event, "t": seconds, **fields}), file=sys.stderr, flush=True)

    @contextmanager
    def progress(self, total: int, processes: int) -> Generator[None]:
        """A bar on stderr for more than one image at a terminal; lines then come above it."""
        if self.json:
            self._event("start", images=self.total, to_do=total, processes=processes)
        if total < 2 or self.quiet or self.json or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("images", total=total)
            if sys.stdout.isatty():
                self._write = above(bar.console)
            self._advance = lambda: bar.advance(task)
            try:
                yield
            finally:
                self._write, self._advance = say, lambda: None


def above(console: "Console") -> Callable[[str], None]:
    """A function that prints a line above a progress bar as plain text: no markup, no emoji codes, no escapes."""

    def write_line(line: str) -> None:
        console.print(printable(line), markup=False, emoji=False, highlight=False, soft_wrap=True)

    return write_line


_FALLBACKS = {
    "translation": ("distance from the crop camera", "distances from the crop camera"),
    "no_keypoints": ("person without keypoints in the crop", "people without keypoints in the crop"),
    "merged": ("duplicate detection dropped", "duplicate detections dropped"),
    "unposed": ("box without keypoints", "boxes without keypoints"),
    "unposed_dropped": ("box without keypoints dropped", "boxes without keypoints dropped"),
    "turned": ("rotated detection", "rotated detections"),
    "dropped": ("person beyond --max-people", "people beyond --max-people"),
    "non_finite": ("keypoint that is not finite", "keypoints that are not finite"),
    "far_outside": ("keypoint far outside the image", "keypoints far outside the image"),
    "skipped": ("entry without a person skipped", "entries without a person skipped"),
    "malformed": ("entry that cannot be read", "entries that cannot be read"),
    "no_label_file": ("missing label file", "missing label files"),
}
"""Key of Scene.fallbacks -> the words for one and for several."""


def _happened(name: str, number: int) -> str:
    one, several = _FALLBACKS.get(name, (name, name))
    return f"{number} {one if number == 1 else several}"


def _summary(outcome: "Outcome") -> str:
    people = {0: "no person detected, an empty scene", 1: "1 person"}.get(
        outcome.people, f"{outcome.people} people"
    )
    extra = [_happened(name, number) for name, number in outcome.fallbacks] + list(outcome.notes)
    return people + (f" ({'; '.join(extra)})" if extra else "")
