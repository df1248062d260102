"""The user's own keypoints: a file is read once, an image's people are looked up by its name.

What a format says stands in formats.py, how numbers become pixels in scale.py. What is forgiven is
counted (KeypointPeople); all else raises InputError with file, person and field.
"""

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from dpmesh.errors import InputError
from dpmesh.inference.detections import Detection
from dpmesh.inference.keypoints.boxes import refuse_box
from dpmesh.inference.keypoints.formats import take_apart
from dpmesh.inference.keypoints.names import ImageIndex, parts_of
from dpmesh.inference.keypoints.raw import FileImage, FilePerson, Format
from dpmesh.inference.keypoints.scale import confidence_scale, to_pixels
from dpmesh.io import parse_json, read_bytes
from dpmesh.skeletons import COCO17, JOINTS30, convert

LARGEST_FILE = 2**30
"""Bytes. person_keypoints_train2017.json has a quarter of that."""
FAR_OUTSIDE = 0.5
"""A point further outside than this part of the image's long side is a mistake: not visible."""
MARGIN = 0.15
"""A box around keypoints leaves this part of its long side free: heads and hands reach past their joints."""
_OUTSIDE = 0.05
"""Of the image's long side: how far outside a point may lie and still shape the box."""
_ENOUGH = 2000
"""People by which a file's confidences are judged."""
_ENDINGS = re.compile(r"(_keypoints|_openpose|_pose|\.predictions|_predictions)$")
"""What tools put behind the image's name."""


@dataclass(frozen=True)
class KeypointPeople:
    """People of one image and what was forgiven in reading them.

    non_finite: points with NaN, infinity or null; far_outside: points far from the image; both now not visible.
    skipped: entries without a visible joint and without a box, crowds, and what is no person.
    malformed: entries that cannot be read, beside others that can.
    """

    people: tuple[Detection, ...]
    non_finite: int = 0
    far_outside: int = 0
    skipped: int = 0
    malformed: int = 0


def read_keypoints(
    path: Path, image_name: str, image_size: tuple[int, int], only_image: bool = True
) -> list[Detection]:
    """The people of one image in a keypoint file; `read_keypoint_file` without its counts."""
    return list(read_keypoint_file(path, image_name, image_size, only_image).people)


def read_keypoint_file(
    path: Path,
    image_name: str,
    image_size: tuple[int, int],
    only_image: bool = True,
    format: str | None = None,
) -> KeypointPeople:
    """The people of the image `image_name` (its path) of `image_size` (h, w) px in a file, or in a folder of one file
    an image.

    only_image: no other image is in play, so a file that names no image belongs to this one. format: a name of
    formats.FORMAT_NAMES; None tells by structure. Raises InputError.
    """
    return open_keypoints(path, format).people(image_name, image_size, only_image)


def open_keypoints(path: Path, format: str | None = None) -> "KeypointFile":
    """A file or folder of keypoints, decoded once as long as it does not change. Raises InputError."""
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
    """A file: its images, made when they are first asked for. name: of a folder's file, the image that it is for."""

    path: Path
    format: str | None
    name: str = ""
    loaded: tuple[list[FileImage], Format, float] | None = None

    def images(self) -> tuple[list[FileImage], Format, float]:
        if self.loaded is None:
            try:
                images, form = take_apart(_content(self.path), self.format)
                people = [p for p, _ in _readable(images, _ENOUGH)]
                if people and all(person.skip == "no keypoints" for person in people):
                    raise InputError("no entry has keypoints", fix="Boxes are given by --boxes.")
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
    if path.suffix.lower() != ".txt":
        return parse_json(data, str(path))
    try:
        return [
            tuple(float(word) for word in line.split()) for line in data.decode().splitlines() if line.strip()
        ]
    except (ValueError, UnicodeDecodeError):
        raise InputError("is no text of rows of numbers", where=str(path)) from None


class KeypointFile:
    """A keypoint file, or a folder with a file for each image, ready to be asked for images."""

    def __init__(self, path: Path, format: str | None = None) -> None:
        self.path, self.used = path, set[str]()
        self.folder = path.is_dir()
        if self.folder:
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in (".json", ".txt") and p.is_file())
            if not files:
                raise InputError("the folder holds no keypoint file (.json, .txt)", where=str(path))
            self.parts = [_Part(file, format, _image_stem(file)) for file in files]
        else:
            self.parts = [_Part(path, format)]

    def people(self, image_name: str, image_size: tuple[int, int], only_image: bool = True) -> KeypointPeople:
        """As read_keypoint_file."""
        images, form, per = self._images_of(image_name, only_image)
        found = [self._collect(image, form, per, image_size) for image in images]
        return KeypointPeople(
            tuple(p for one in found for p in one.people),
            *(
                sum(getattr(one, n) for one in found)
                for n in ("non_finite", "far_outside", "skipped", "malformed")
            ),
        )

    def unused(self) -> list[str]:
        """Names of the images that the file knows and that were not asked for."""
        return [label for label in self._index.labels if label not in self.used]

    @cached_property
    def _index(self) -> "ImageIndex[tuple[_Part, FileImage | None]]":
        """Every named image; None stands for all of a folder's file, which is not read before it is asked for."""
        entries: list[tuple[str, tuple[_Part, FileImage | None]]] = []
        for part in self.parts:
            if part.name:
                entries.append((part.name, (part, None)))
            else:
                entries += [(str(v), (part, image)) for image in part.images()[0] for v in image.labels]
        return ImageIndex(entries)

    def _images_of(self, image_name: str, only_image: bool) -> tuple[list[FileImage], Format, float]:
        found = self._index.find_labelled(image_name, str(self.path))
        if found:
            self.used |= {label for label, _ in found}
            part = found[0][1][0]
            images, form, per = part.images()
            chosen = [image for _, (_, image) in found if image is not None]
            return chosen or _one_frame(images, str(part.path)), form, per
        if not self.folder:
            images, form, per = self.parts[0].images()
            if not any(image.labels for image in images):
                if not only_image:
                    raise InputError(
                        "the file names no image",
                        where=str(self.path),
                        fix="Give one image with it, or a folder with a file for each: NAME.json for NAME.jpg.",
                    )
                return _one_frame(images, str(self.path)), form, per
            if only_image and len(images) == 1 and _is_bare_number(images[0], image_name):
                return images, form, per
        raise InputError(
            f"knows no image {image_name}", where=str(self.path), fix=f"It has: {self._index.some()}."
        )

    def _collect(
        self, image: FileImage, form: Format, per: float, image_size: tuple[int, int]
    ) -> KeypointPeople:
        read: list[tuple[FilePerson, str]] = []
        faults: list[InputError] = []
        for where, row in image.rows:
            try:
                read.append((image.read(row), where))
            except InputError as error:
                faults.append(InputError(error.what, where=f"{self.path}: {where}", fix=error.fix))
        wanted = [(person, where) for person, where in read if not person.skip]
        skipped = len(read) - len(wanted)
        if faults and not wanted:
            raise faults[0]
        try:
            placed = to_pixels([p for p, _ in wanted], image, image_size, form.fractions, "canvas")
        except InputError as error:
            raise InputError(error.what, where=str(self.path), fix=error.fix) from None
        people: list[Detection] = []
        non_finite = far_outside = 0
        for person in placed:
            points, broken, far = cleaned(person.points, image_size, per)
            non_finite, far_outside = non_finite + broken, far_outside + far
            visible = points[points[:, 2] > 0]
            box = _usable(person.box, image_size)
            if not len(visible) and box is None:
                skipped += 1
                continue
            box = _around(visible, image_size) if box is None else box
            score = float(visible[:, 2].mean()) if len(visible) else 0.0
            if person.score is not None and np.isfinite(person.score):
                score = float(np.clip(person.score / per, 0, 1))
            exact = points.astype(np.float32)
            people.append(
                Detection(
                    box, convert(exact, person.joints, COCO17), score, convert(exact, person.joints, JOINTS30)
                )
            )
        return KeypointPeople(tuple(people), non_finite, far_outside, skipped, len(faults))


def _one_frame(images: list[FileImage], where: str) -> list[FileImage]:
    if len(images) > 1:
        raise InputError(
            f"holds {len(images)} frames of a film and names no image",
            where=where,
            fix="Give a file or an entry for each image.",
        )
    return images


def _is_bare_number(image: FileImage, image_name: str) -> bool:
    """Whether a file's one image is known by a number alone and this image's name has none that could contradict."""
    return all(str(v).isdecimal() for v in image.labels) and not re.search(r"\d", parts_of(image_name)[-1])


def _image_stem(file: Path) -> str:
    """The image that a folder's file is for, by its name: a_keypoints.json, a.jpg.predictions.json, a.txt."""
    return _ENDINGS.sub("", unicodedata.normalize("NFC", file.stem))


def cleaned(
    points: Float64[np.ndarray, "j 3"], size: tuple[int, int], per: float = 1.0
) -> tuple[Float64[np.ndarray, "j 3"], int, int]:
    """Points with confidences in [0, 1], what cannot be used zero; and how many were not finite or far outside."""
    points = points.copy()
    points[:, 2] /= per
    broken = ~np.isfinite(points).all(-1)
    reach = FAR_OUTSIDE * max(size)
    limit = np.asarray([size[1], size[0]]) + reach
    with np.errstate(invalid="ignore"):
        far = ~broken & (points[:, 2] > 0) & ((points[:, :2] < -reach) | (points[:, :2] > limit)).any(-1)
    points[broken | far] = 0
    points[:, 2] = points[:, 2].clip(0, 1)
    points[points[:, 2] == 0] = 0
    return points, int(broken.sum()), int(far.sum())


def _usable(
    box: tuple[float, float, float, float] | None, size: tuple[int, int]
) -> Float32[np.ndarray, "4"] | None:
    """The file's box, if it can be looked into; else the joints make one."""
    if box is None or not np.isfinite(box).all():
        return None
    try:
        refuse_box(box, "", size)
    except InputError:
        return None
    return np.asarray(box, np.float32)


def _around(visible: Float64[np.ndarray, "k 3"], size: tuple[int, int]) -> Float32[np.ndarray, "4"]:
    """Box around visible points with a margin; around very few points, a twentieth of the image at least. Points
    outside the image stretch it only where there are no others: they are guesses."""
    long_side = max(size)
    xy, near = visible[:, :2], _OUTSIDE * long_side
    inside = ((xy >= -near) & (xy <= np.asarray([size[1], size[0]]) + near)).all(1)
    xy = xy[inside] if inside.sum() >= 2 else xy
    low, high = xy.min(0), xy.max(0)
    extent = max(float((high - low).max()), long_side / 20)
    return np.concatenate([low - MARGIN * extent, high + MARGIN * extent]).astype(np.float32)
