"""Keypoint files of the user: each is read once, and an image's people are looked up by the image's name.

formats.py knows the formats, scale.py how numbers become pixels. Faults that are forgiven are counted
(people.KeypointPeople); all others raise InputError with file, person and field.
"""

import codecs
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from dpmesh.errors import InputError
from dpmesh.inference.keypoints.formats import parse_images
from dpmesh.inference.keypoints.names import ImageIndex, parts_of, stem
from dpmesh.inference.keypoints.people import KeypointPeople, joined, people_of
from dpmesh.inference.keypoints.raw import FileImage, FilePerson, Format
from dpmesh.inference.keypoints.scale import confidence_scale
from dpmesh.io import parse_json, read_bytes

LARGEST_FILE = 2**30
"""Bytes, four times person_keypoints_train2017.json."""
_MOST_SCALED = 2000
"""People from whom the scale of a file's confidences is determined."""
_ENDINGS = re.compile(r"(_keypoints|_openpose|_pose|_result|\.predictions|_predictions)$")
"""Suffixes that tools add to the image's name."""

_OTHERS = (
    (b"\x93NUMPY", "a NumPy array", "From Python: predictor(image, keypoints=array)."),
    (b"\xff\xd8\xff", "a JPEG image", "Name the file with its keypoints."),
    (b"\x89PNG", "a PNG image", "Name the file with its keypoints."),
    (b"<?xml", "XML", "Export the keypoints as COCO JSON."),
)
"""Beginning of files that are no JSON, what they are, and the fix."""


def read_keypoint_file(
    path: Path,
    image_name: str,
    image_size: tuple[int, int],
    only_image: bool = True,
    format: str | None = None,
    inputs: Sequence[str] = (),
) -> KeypointPeople:
    """The people of one image in a keypoint file, or in a folder with one file per image.

    image_name: its path. image_size: (h, w) px. only_image: no other image is processed, so a file that names no image
    belongs to this one. format: a name of formats.FORMAT_NAMES; None detects it by structure.
    inputs: paths of all images that are processed: an entry serves one of them. Raises InputError.
    """
    return open_keypoints(path, format).people(image_name, image_size, only_image, inputs)


def open_keypoints(path: Path, format: str | None = None) -> "KeypointFile":
    """A file or folder of keypoints, cached until it changes. Raises InputError."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise InputError("no such file", where=str(path), fix="Check the path.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read ({type(error).__name__})", where=str(path)) from None
    return _opened(path, status.st_mtime_ns, status.st_size, format)


@lru_cache(maxsize=2)
def _opened(path: Path, _changed: int, _size: int, format: str | None) -> "KeypointFile":
    return KeypointFile(path, format)


@dataclass(eq=False)
class _Part:
    """One file; its images are read on first use. name: the image it belongs to, in a folder of files."""

    path: Path
    format: str | None
    name: str = ""
    loaded: tuple[list[FileImage], Format, float] | None = None

    def images(self) -> tuple[list[FileImage], Format, float]:
        if self.loaded is None:
            try:
                images, form = parse_images(_content(self.path), self.format)
                people = [p for p, _ in _readable(images, _MOST_SCALED)]
                if people and all(person.skip == "no keypoints" for person in people):
                    raise InputError("no entry has keypoints", fix="Pass boxes by --boxes.")
                self.loaded = images, form, confidence_scale(people)
            except InputError as error:
                where = f"{self.path}: {error.where}" if error.where and error.where != str(self.path) else ""
                raise InputError(error.what, where=where or str(self.path), fix=error.fix) from None
        return self.loaded


def _readable(images: Iterable[FileImage], most: int) -> Iterable[tuple[FilePerson, str]]:
    read = 0
    for image in images:
        for where, row in image.rows:
            if read >= most:
                return
            read += 1
            try:
                yield image.read(row), where
            except InputError:
                continue


def _content(path: Path) -> Any:
    """JSON, or the rows of numbers of a .txt as tuples."""
    data = read_bytes(path, LARGEST_FILE)
    for head, what, fix in _OTHERS:
        if data.startswith(head):
            raise InputError(f"is {what}, not a keypoint file", where=str(path), fix=fix)
    if path.suffix.lower() == ".csv":
        raise InputError("is a CSV table, not a keypoint file", where=str(path), fix=_OTHERS[-1][2])
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", errors="replace").encode(errors="replace")
    if path.suffix.lower() != ".txt":
        return parse_json(data, str(path))
    try:
        return [
            tuple(float(word) for word in line.split()) for line in data.decode().splitlines() if line.strip()
        ]
    except (ValueError, UnicodeDecodeError):
        raise InputError("is no text of rows of numbers", where=str(path)) from None


class KeypointFile:
    """A keypoint file, or a folder with one file per image."""

    def __init__(self, path: Path, format: str | None = None) -> None:
        self.path, self.used = path, set[str]()
        self.folder = path.is_dir()
        if self.folder:
            places = [place for place in [path, *sorted(path.rglob("*"))] if place.is_file()]
            files = [p for p in places if p.suffix.lower() in (".json", ".txt")]
            if not files:
                raise InputError("the folder has no keypoint file (.json, .txt)", where=str(path))
            self.parts = [
                _Part(file, format, (file.parent.relative_to(path) / _image_stem(file)).as_posix())
                for file in files
            ]
        else:
            self.parts = [_Part(path, format)]

    def people(
        self,
        image_name: str,
        image_size: tuple[int, int],
        only_image: bool = True,
        inputs: Sequence[str] = (),
    ) -> KeypointPeople:
        """As read_keypoint_file."""
        if self._has_no_label(image_name, inputs):
            return KeypointPeople((), no_label_file=1)
        images, form, scale = self._images_of(image_name, only_image, inputs)
        return joined(people_of(image, form, scale, image_size, str(self.path)) for image in images)

    def _has_no_label(self, image_name: str, inputs: Sequence[str]) -> bool:
        """Whether a folder of YOLO labels has none for this image, and has some for others: no person was detected."""
        if not self.folder or any(part.path.suffix.lower() != ".txt" for part in self.parts):
            return False
        where = str(self.path)
        return not self._index.find(image_name, where) and self._index.has_any(inputs, where)

    def unused(self, inputs: Sequence[str] = ()) -> list[str]:
        """Names of the images in the file that were never looked up. inputs: paths of all images of the run."""
        if inputs:
            self._index.has_any(inputs, str(self.path))
        return [label for label in self._index.unclaimed() if label not in self.used]

    @cached_property
    def _index(self) -> "ImageIndex[tuple[_Part, FileImage | None]]":
        """Every named image; None stands for a whole file of a folder, which is read on first use."""
        entries: list[tuple[str, tuple[_Part, FileImage | None]]] = []
        for part in self.parts:
            if part.name:
                entries.append((part.name, (part, None)))
            else:
                entries += [(str(v), (part, image)) for image in part.images()[0] for v in image.labels]
        return ImageIndex(entries)

    def _images_of(
        self, image_name: str, only_image: bool, inputs: Sequence[str]
    ) -> tuple[list[FileImage], Format, float]:
        matches = self._index.find(image_name, str(self.path), inputs)
        if matches:
            self.used |= {label for label, _ in matches}
            part = matches[0][1][0]
            images, form, scale = part.images()
            chosen = [image for _, (_, image) in matches if image is not None]
            return chosen or _one_frame(images, str(part.path)), form, scale
        if not self.folder:
            images, form, scale = self.parts[0].images()
            if not any(image.labels for image in images):
                if not only_image:
                    raise InputError(
                        "the file names no image",
                        where=str(self.path),
                        fix="Use it with one image, or a folder with one file per image: NAME.json for NAME.jpg.",
                    )
                return _one_frame(images, str(self.path)), form, scale
            if only_image and len(images) == 1 and _counts_one_image(images[0], image_name):
                self.used |= set(map(str, images[0].labels))
                return images, form, scale
        fix = f"Its images: {self._index.some()}."
        if all(label.isdecimal() for label in self._index.labels):
            fix += (
                " These are ids: add the file's `images` table with file_name, or name the image by its id."
            )
        raise InputError(f"has no image {image_name}", where=str(self.path), fix=fix)


def _one_frame(images: list[FileImage], where: str) -> list[FileImage]:
    if len(images) > 1:
        raise InputError(
            f"has {len(images)} frames of a video and names no image",
            where=where,
            fix="Use a file or an entry for each image.",
        )
    return images


def _counts_one_image(image: FileImage, image_name: str) -> bool:
    """Whether a file's only image has the id 0 or 1, as tools count, and this image's name is no other number."""
    return set(map(str, image.labels)) <= {"0", "1"} and not stem(parts_of(image_name)[-1]).isdecimal()


def _image_stem(file: Path) -> str:
    """The image that a folder's file belongs to, by its name: a_keypoints.json, a.jpg.predictions.json, a.txt."""
    return _ENDINGS.sub("", unicodedata.normalize("NFC", file.stem))
