"""Look up the entries of an image by name, regardless of Unicode form, case, suffix or folder."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from dpmesh.errors import InputError, printable

Entry = TypeVar("Entry")
_LONGEST = 18
"""Most digits of a number that names an image."""


class ImageIndex(Generic[Entry]):
    """Entries by the names of their images in a file."""

    def __init__(self, entries: Iterable[tuple[str, Entry]]) -> None:
        """entries: (label, entry). A label is a name, a path with separators of either system, or a number."""
        self.labels: list[str] = []
        self._by_name: dict[str, list[tuple[str, Entry]]] = {}
        self._by_number: dict[int, list[tuple[str, Entry]]] = {}
        for label, entry in entries:
            self.labels.append(label)
            name = parts_of(label)[-1]
            for key in {name, fold(name), stem(name), fold(stem(name))}:
                self._by_name.setdefault(key, []).append((label, entry))
            if label.isdecimal() and len(label) <= _LONGEST:
                self._by_number.setdefault(int(label), []).append((label, entry))

    def find(self, image_name: str, where: str) -> list[Entry]:
        """The entries of the image at the path `image_name`; empty where the file does not have it.

        Its exact name comes first, then its name regardless of case, then without suffix, then as a number
        (`000000000139.jpg` and `COCO_val2014_000000000139.jpg` are 139, `IMG_0139.jpg` is not). Raises InputError
        where several images of the file have this name and its folders do not decide.
        """
        return [entry for _, entry in self.find_labelled(image_name, where)]

    def find_labelled(self, image_name: str, where: str) -> list[tuple[str, Entry]]:
        """The same, with their labels."""
        name = parts_of(image_name)[-1]
        for wanted, made in (
            (name, str),
            (fold(name), fold),
            (stem(name), str),
            (fold(stem(name)), fold),
        ):
            candidates = self._by_name.get(wanted, [])
            matches = [one for one in candidates if made(parts_of(one[0])[-1]) == wanted]
            if matches:
                return _by_folder(matches, image_name, where)
        number = re.fullmatch(r"(?:COCO_\w+?_)?0*(\d+)", stem(name))  # IMG_0139 is not image 139
        if number is None or len(number[1]) > _LONGEST:
            return []
        return self._by_number.get(int(number[1]), [])

    def some(self) -> str:
        """The first labels, for an error message."""
        return some(self.labels)


def some(names: Iterable[str]) -> str:
    """The first three names, and how many more."""
    listed = [shown(name) for name in dict.fromkeys(names)]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "") or "none"


def shown(name: str) -> str:
    """A file name for a message: short, on one line, without control characters."""
    return printable(name[:60]) + ("…" if len(name) > 60 else "")


def _by_folder(matches: list[tuple[str, Entry]], image_name: str, where: str) -> list[tuple[str, Entry]]:
    labels = list(dict.fromkeys(label for label, _ in matches))
    if len(labels) == 1:
        return matches
    own = parts_of(str(Path(image_name).absolute()))

    def shared(label: str) -> int:
        pairs = zip(reversed(parts_of(label)), reversed(own), strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if i and a != b), len(parts_of(label)))

    best = max(map(shared, labels))
    chosen = [label for label in labels if shared(label) == best]
    if len(chosen) > 1 or best < 2:
        raise InputError(
            f"more than one image is called {parts_of(image_name)[-1]}: {some(labels)}",
            where=where,
            fix="Name the image with the folder that the file has for it.",
        )
    return [one for one in matches if one[0] == chosen[0]]


def parts_of(name: str) -> tuple[str, ...]:
    """Folders and name of a path, in composed Unicode."""
    return PurePosixPath(unicodedata.normalize("NFC", name).replace("\\", "/")).parts or ("",)


def stem(name: str) -> str:
    return PurePosixPath(name).stem


def fold(name: str) -> str:
    """For comparisons regardless of case."""
    return unicodedata.normalize("NFC", name.casefold())
