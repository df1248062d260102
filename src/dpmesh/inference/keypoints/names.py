"""Look up the entries of an image by name, regardless of Unicode form, case, suffix or folder."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from dpmesh.decode import SUFFIXES
from dpmesh.errors import InputError, printable

Entry = TypeVar("Entry")
_LONGEST = 18
"""Most digits of a number that names an image."""


@dataclass(frozen=True)
class _Claim:
    """How well an image matches a label. tier: 0 is the exact name. folders: parts of the path that are equal."""

    tier: int
    folders: int

    def exceeds(self, other: "_Claim") -> bool:
        """Better in one of both, and worse in none."""
        no_worse = self.tier <= other.tier and self.folders >= other.folders
        return no_worse and (self.tier, self.folders) != (other.tier, other.folders)


class ImageIndex(Generic[Entry]):
    """Entries by the names of their images in a file."""

    def __init__(self, entries: Iterable[tuple[str, Entry]]) -> None:
        """entries: (label, entry). A label is a name, a path with separators of either system, or a number."""
        self.labels: list[str] = []
        self._by_name: dict[str, list[tuple[str, Entry]]] = {}
        self._by_number: dict[int, list[tuple[str, Entry]]] = {}
        self._inputs: Sequence[str] = ()
        self._read = 0
        self._claims: dict[str, dict[str, _Claim]] = {}
        for label, entry in entries:
            self.labels.append(label)
            name = parts_of(label)[-1]
            for key in {name, fold(name), _without_suffix(name), fold(_without_suffix(name))}:
                self._by_name.setdefault(key, []).append((label, entry))
            if label.isdecimal() and len(label) <= _LONGEST:
                self._by_number.setdefault(int(label), []).append((label, entry))

    def find(self, image_name: str, where: str, inputs: Sequence[str] = ()) -> list[tuple[str, Entry]]:
        """(label, entry) of the image at the path `image_name`; empty where the file does not have it.

        Its exact name comes first, then its name regardless of case, then without suffix, then as a number
        (`000000000139.jpg` and `COCO_val2014_000000000139.jpg` are 139, `IMG_0139.jpg` is not), then the name of
        the same image with another suffix.

        inputs: the paths of all images that are processed. An entry belongs to the one that matches it best, by name
        and by folder. Raises InputError where several images of the file have this name and its folders do not
        decide, and where several inputs match the entry equally well.
        """
        matches, _ = self._matches(image_name, where)
        for label in dict.fromkeys(label for label, _ in matches):
            claims = self._claims_of(inputs, where).get(label, {})
            own = claims.get(os.path.abspath(image_name))
            for claim in claims.values():
                if own is None or claim is own or own.exceeds(claim):
                    continue
                if claim.exceeds(own):
                    return []
                both = [_as_named(inputs, path) for path in claims if claims[path] in (own, claim)][:2]
                raise InputError(
                    f"the entry {shown(label)} matches {' and '.join(both)} equally well",
                    where=where,
                    fix="Use an entry for each image, with its folder or its full name.",
                )
        return matches

    def unclaimed(self) -> list[str]:
        """The labels that match none of the inputs so far."""
        return [label for label in self.labels if label not in self._claims]

    def has_any(self, inputs: Sequence[str], where: str) -> bool:
        """Whether the file has one of these images."""
        return bool(self._claims_of(inputs, where))

    def _claims_of(self, inputs: Sequence[str], where: str) -> "dict[str, dict[str, _Claim]]":
        """Label -> absolute path of each input that matches it -> how well. inputs: may have grown since."""
        if inputs is not self._inputs:
            self._inputs, self._read, self._claims = inputs, 0, {}
        for name in inputs[self._read :]:
            try:
                matches, tier = self._matches(name, where) if name else ([], 0)
            except InputError:  # reported for the image itself
                continue
            for label, _ in matches:
                claim = _Claim(tier, _shared(label, name))
                self._claims.setdefault(label, {})[os.path.abspath(name)] = claim
        self._read = len(inputs)
        return self._claims

    def _matches(self, image_name: str, where: str) -> tuple[list[tuple[str, Entry]], int]:
        """The entries of an image, and the tier of the match: 0 is the exact name."""
        name = parts_of(image_name)[-1]
        short = stem(name)
        for tier, wanted, made in (
            (0, name, str),
            (1, fold(name), fold),
            (2, short, str),
            (3, fold(short), fold),
        ):
            if matches := self._named(wanted, made):
                return _by_folder(matches, image_name, where), tier
        number = re.fullmatch(r"(?:COCO_\w+?_)?0*(\d+)", short)  # IMG_0139 is not image 139
        if number is not None and len(number[1]) <= _LONGEST and int(number[1]) in self._by_number:
            return self._by_number[
                int(number[1])
            ], 2  # 139.jpg is not nearer to the number 139 than 000139.jpg
        for tier, wanted, made in ((4, short, _without_suffix), (5, fold(short), _folded_without_suffix)):
            if matches := self._named(wanted, made):
                return _by_folder(matches, image_name, where), tier
        return [], 0

    def _named(self, wanted: str, made: Callable[[str], str]) -> list[tuple[str, Entry]]:
        candidates = self._by_name.get(wanted, [])
        return [one for one in candidates if made(parts_of(one[0])[-1]) == wanted]

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
    best = max(_shared(label, image_name) for label in labels)
    chosen = [label for label in labels if _shared(label, image_name) == best]
    whole = [
        label for label in chosen if len(parts_of(label)) == best
    ]  # no folder of it contradicts the image's
    chosen = whole if len(chosen) > 1 else chosen
    if len(chosen) != 1:
        raise InputError(
            f"more than one image is called {parts_of(image_name)[-1]}: {some(labels)}",
            where=where,
            fix="Name the image with the folder that the file has for it.",
        )
    return [one for one in matches if one[0] == chosen[0]]


def _shared(label: str, image_name: str) -> int:
    """How many parts of the label, from its end, are those of the image's path. The names count as equal."""
    own = parts_of(str(Path(image_name).absolute()))
    pairs = zip(reversed(parts_of(label)), reversed(own), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if i and a != b), len(parts_of(label)))


def _as_named(inputs: Sequence[str], absolute: str) -> str:
    return next(name for name in inputs if name and os.path.abspath(name) == absolute)


def parts_of(name: str) -> tuple[str, ...]:
    """Folders and name of a path, in composed Unicode."""
    return PurePosixPath(unicodedata.normalize("NFC", name).replace("\\", "/")).parts or ("",)


def stem(name: str) -> str:
    return PurePosixPath(name).stem


def _without_suffix(name: str) -> str:
    """Without the suffix of an image: `a.jpg` is `a`, `a.0001` stays."""
    return stem(name) if PurePosixPath(name).suffix.lower() in SUFFIXES else name


def _folded_without_suffix(name: str) -> str:
    return fold(_without_suffix(name))


def fold(name: str) -> str:
    """For comparisons regardless of case."""
    return unicodedata.normalize("NFC", name.casefold())
