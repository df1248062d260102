"""What a training tells: a bar or lines on the console, CSV always, TensorBoard if wanted, sheets of overlays."""

import csv
import logging
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dpmesh.errors import ConfigError
from dpmesh.io import atomic_path, atomic_write

log = logging.getLogger("dpmesh.train")

Row = dict[str, Any]


class Report:
    """One stage's. `first`: steps that are done already. On all processes but the first it tells nothing."""

    def __init__(
        self, out: Path, stage: str, first: int, steps: int, *, tells: bool = True, tensorboard: bool = False
    ) -> None:
        self.out, self.stage, self.first, self.steps, self.tells = out, stage, first, steps, tells
        self.began = time.monotonic()
        self.board = _board(out / "tensorboard" / stage) if tensorboard and tells else None
        console = Console(stderr=True)
        self.bar: Progress | None = None
        if tells and console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self.bar = Progress(
                *columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console
            )
            self.task = self.bar.add_task(stage, total=steps, completed=first, note="")
        if tells:
            for name in (f"log_{stage}.csv", "validation.csv"):
                _forget_after(out / name, stage, first)

    def __enter__(self) -> "Report":
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        if self.board is not None:
            self.board.close()

    def step(self, done: int) -> None:
        """The bar moves."""
        if self.bar is not None:
            self.bar.update(self.task, completed=done)

    def row(self, done: int, batch: int, values: Row) -> None:
        """A line of log_STAGE.csv."""
        if not self.tells:
            return
        spent = time.monotonic() - self.began
        speed = (done - self.first) * batch / spent
        left = spent / (done - self.first) * (self.steps - done)
        _append(
            self.out / f"log_{self.stage}.csv",
            {"stage": self.stage, "step": done, **values, "samples_per_s": round(speed, 1)},
        )
        self._to_board(done, values)
        note = f"loss {values['loss']:.4f}  {speed:.1f} samples/s"
        if self.bar is not None:
            self.bar.update(self.task, note=note)
        else:
            eta = time.strftime("%H:%M:%S", time.gmtime(left))
            log.info("%s %d/%d %s  %s left", self.stage, done, self.steps, note, eta)

    def validation(self, done: int, people: int, figures: Row) -> None:
        """A line of validation.csv, whose stages may have different columns. figures: may say `people` themselves."""
        if not self.tells or not figures:
            return
        _append(self.out / "validation.csv", {"stage": self.stage, "step": done, "people": people, **figures})
        place = "/".join(filter(None, ("validation", figures.get("protocol", ""))))
        numbers = {name: value for name, value in figures.items() if not isinstance(value, str)}
        self._to_board(done, {f"{place}/{name}": value for name, value in numbers.items()})
        self.say(f"validation after {self.stage} {done}: {figures}")

    def sheet(self, done: int, picture: UInt8[np.ndarray, "h w 3"] | None) -> None:
        """sheets/STAGE_STEP.png."""
        if not self.tells or picture is None:
            return
        folder = self.out / "sheets"
        _, data = cv2.imencode(".png", picture[..., ::-1])
        atomic_write(folder / f"{self.stage}_{done:06d}.png", data.tobytes())

    def say(self, text: str) -> None:
        """A line between."""
        if self.bar is not None:
            self.bar.console.print(text)
        elif self.tells:
            log.info("%s", text)

    def _to_board(self, done: int, values: Row) -> None:
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, done)


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "TensorBoard is not installed", where="tensorboard", fix="pip install 'dpmesh[train]'"
        ) from error
    return SummaryWriter(str(folder))


def _append(path: Path, row: Row) -> None:
    """A line; a file with other columns gets the new ones, empty in the older lines."""
    rows = _read(path)
    columns = list(rows[0]) if rows else []
    if rows and (new := [name for name in row if name not in columns]):
        _write(path, rows, [*columns, *new])
        columns += new
    with path.open(
        "a" if rows else "w", newline=""
    ) as file:  # what has no line may have a header, or half of one
        writer = csv.DictWriter(file, columns or list(row))
        if not rows:
            writer.writeheader()
        writer.writerow(row)


def _forget_after(path: Path, stage: str, step: int) -> None:
    """Leave out a stage's lines behind the checkpoint that a run goes on from: they are written again."""
    rows = _read(path)
    try:
        kept = [row for row in rows if row["stage"] != stage or int(row["step"]) <= step]
    except (KeyError, ValueError):
        raise ConfigError("is no table of a training", where=str(path), fix="Choose another `out`.") from None
    if rows and (len(kept) < len(rows) or not path.read_bytes().endswith(b"\n")):  # or half a line at its end
        _write(path, kept, list(rows[0]))


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            row for row in csv.DictReader(file) if None not in row and None not in row.values()
        ]  # a killed run may leave half a line


def _write(path: Path, rows: list[dict[str, str]], columns: list[str]) -> None:
    with atomic_path(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
