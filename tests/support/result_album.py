"""An album of difficult file names, and what holds of the result folders in it."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from dpmesh.inference.record import MARKER

RAW = os.fsdecode(b"caf\xe9.jpg")
"""A name that is no UTF-8."""
NAMES = (
    "park/park.jpg", "park/tree.jpg", "holiday.jpg", "photo", "photo.jpg", "..jpg", "...jpg", "....", ".hidden.jpg",
    "line\nbreak.jpg", "esc\x1b[31mred.jpg", "[bold]markup[/] :smile:.jpg", "\u202egpj.jpg", RAW, "\u00e9.jpg",
    "e\u0301.jpg", "A.JPG", "a.jpg", "a.png", "k.jpg", "\u6f22" * 80 + ".jpg", "x" * 250 + ".jpg", "-o.jpg",
    "link target.jpg",
)  # fmt: skip


def make_album(tmp_path: Path) -> Path:
    """Images and other files and links."""
    folder = tmp_path / "album"
    for i, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            Image.fromarray(np.full((24, 20 + i, 3), 9 * i, np.uint8)).save(file, "PNG")
    (folder / "holiday").mkdir()
    (folder / "holiday" / "diary.txt").write_text("three days of rain")
    (folder / "holiday" / "scene.json").write_text('{"schema": "someone else\'s"}')
    (folder / ".park.old").mkdir()
    (folder / ".park.old" / "scene.json").write_text("mine")
    (folder / ".a.jpg.partial").write_text("mine")
    (folder / ".k.dpmesh-part").symlink_to(folder / "holiday")
    (folder / "link target").symlink_to(folder / "holiday")
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    return folder


def originals(folder: Path) -> dict[str, str]:
    """Every file and link below, but what dpmesh wrote, with its content."""
    result: dict[str, str] = {}
    for root, folders, files in os.walk(folder):
        if MARKER in files:
            record = json.loads((Path(root) / MARKER).read_text())
            files = sorted({*files} - {MARKER, *record["files"]})
        for name in [*files, *(n for n in folders if os.path.islink(os.path.join(root, n)))]:
            path = os.path.join(root, name)
            linked = os.path.islink(path)
            data = os.readlink(path).encode() if linked else Path(path).read_bytes()
            result[os.path.relpath(path, folder)] = hashlib.sha256(data).hexdigest()
    return result


def results(folder: Path) -> list[Path]:
    return [Path(root) for root, _, files in os.walk(folder) if MARKER in files]


def assert_unmixed(folder: Path) -> None:
    """A result's files are all of the image and the options that its record names."""
    for result in results(folder):
        record = json.loads((result / MARKER).read_text())
        if "scene.json" in record["files"]:
            scene = json.loads((result / "scene.json").read_text())
            assert scene["source_sha256"] == record["image"] and scene["options"] == record["options"], result
        assert not record["pending"]
