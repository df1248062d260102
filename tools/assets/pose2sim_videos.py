"""Videos and calibration of the PyPI package pose2sim: read from the wheel, and resampled to one pinhole image."""

import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

from dpmesh.errors import InputError
from dpmesh.geometry.camera import intrinsics

CLEAN, OCCLUDED = "Demo_SinglePerson", "Demo_MultiPerson"
CALIBRATION = f"Pose2Sim/{CLEAN}/calibration/Calib.qca.txt"
SUBPIXELS = 64.0
"""Of Qualisys' intrinsics."""
Array = NDArray[np.float64]
Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Camera:
    """size: (width, height). lens: its matrix 3×3, and distortion: OpenCV's k1, k2, p1, p2. R, t: world to camera,
    metres."""

    name: str
    size: tuple[int, int]
    lens: Array
    distortion: Array
    R: Array
    t: Array

    @property
    def K(self) -> Array:
        """Of the resampled images: the lens's mean focal length, square pixels, a central principal point."""
        return intrinsics((self.lens[0, 0] + self.lens[1, 1]) / 2, self.size[::-1])

    @property
    def P(self) -> Array:
        """3×4, world to pixels."""
        return self.K @ np.column_stack([self.R, self.t])


def read_cameras(text: str) -> list[Camera]:
    """Cameras of a Qualisys calibration. Its camera frame has y up and z backwards; its lengths are mm."""
    cameras: list[Camera] = []
    for node in ElementTree.fromstring(text).iter("camera"):
        lens, place, field = (_values(node, tag) for tag in ("intrinsic", "transform", "fov_video"))
        matrix = np.eye(3)
        names = ("focalLengthU", "focalLengthV", "centerPointU", "centerPointV")
        matrix[[0, 1, 0, 1], [0, 1, 2, 2]] = [lens[name] / SUBPIXELS for name in names]
        rotation = np.array([[place[f"r{row}{column}"] for column in (1, 2, 3)] for row in (1, 2, 3)])
        R = np.diag([1.0, -1.0, -1.0]) @ rotation
        centre = np.array([place[axis] for axis in "xyz"]) / 1000
        names = ("radialDistortion1", "radialDistortion2", "tangentalDistortion1", "tangentalDistortion2")
        size = (round(field["right"]) + 1, round(field["bottom"]) + 1)
        distortion = np.array([lens[name] for name in names])
        cameras.append(Camera(node.attrib["serial"], size, matrix, distortion, R, -R @ centre))
    return cameras


def _values(node: ElementTree.Element, tag: str) -> dict[str, float]:
    found = node.find(tag)
    return {} if found is None else {name: float(value) for name, value in found.attrib.items()}


def unpack(package: Path, folder: Path) -> Path:
    """The folder that holds Pose2Sim/, from a wheel, a source archive or such a folder. Raises InputError."""
    if package.is_dir():
        root = package
    else:
        try:
            if package.suffix == ".whl":
                with zipfile.ZipFile(package) as archive:
                    archive.extractall(folder, [n for n in archive.namelist() if _wanted(n)])
            else:
                with tarfile.open(package) as archive:
                    members = [m for m in archive.getmembers() if m.isfile() and _wanted(m.name)]
                    archive.extractall(folder, members, filter="data")
        except (OSError, tarfile.TarError, zipfile.BadZipFile, shutil.Error) as error:
            raise InputError(f"cannot be unpacked ({error})", where=str(package)) from None
        root = folder
    found = [path for path in (root, *sorted(root.iterdir())) if (path / CALIBRATION).is_file()]
    if not found:
        raise InputError(
            f"has no {CALIBRATION}", where=str(package), fix="pip download --no-deps pose2sim==0.10.49"
        )
    return found[0]


def _wanted(name: str) -> bool:
    return name.endswith((".mp4", ".qca.txt")) and (CLEAN in name or OCCLUDED in name)


def read_video(path: Path) -> list[Image]:
    """All frames, BGR. Raises InputError."""
    video = cv2.VideoCapture(str(path))
    frames: list[Image] = []
    while (got := video.read())[0]:
        frames.append(np.asarray(got[1], np.uint8))
    if not frames:
        raise InputError("no frame can be read from the video", where=str(path))
    return frames


def letterbox(size: tuple[int, int], camera: Camera) -> Array:
    """2×3: pixels of the calibration to pixels of a clean video, which may be smaller, with bars on two sides."""
    scale = min(size[0] / camera.size[0], size[1] / camera.size[1])
    offset = [(ours - scale * theirs) / 2 for ours, theirs in zip(size, camera.size, strict=True)]
    half = (scale - 1) / 2  # pixel centres are at whole numbers
    return np.array([[scale, 0, offset[0] + half], [0, scale, offset[1] + half]])


def similarity(clean: list[Image], other: list[Image]) -> tuple[Array, float]:
    """2×3 map of pixels of `clean` to pixels of `other`, from their common background, and the median residual, px."""
    sift, matcher = cv2.SIFT.create(nfeatures=2000, contrastThreshold=0.01), cv2.BFMatcher()
    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for first, second in zip(clean, other, strict=True):
        ours, ours_described = sift.detectAndCompute(first, np.array([]))
        theirs, theirs_described = sift.detectAndCompute(second, np.array([]))
        for best, second_best in matcher.knnMatch(ours_described, theirs_described, k=2):
            if best.distance < 0.7 * second_best.distance:
                pairs.append((ours[best.queryIdx].pt, theirs[best.trainIdx].pt))
    a, b = np.array(pairs).swapaxes(0, 1)
    near = np.linalg.norm(a - b, axis=1) < 40
    a, b = a[near], b[near]
    affine, inside = cv2.estimateAffinePartial2D(a, b, ransacReprojThreshold=2.0)
    off = np.linalg.norm(a @ affine[:, :2].T + affine[:, 2] - b, axis=1)
    return np.asarray(affine, np.float64), float(np.median(off[inside.ravel() > 0]))


def combined(second: Array, first: Array) -> Array:
    """2×3: `first`, then `second`."""
    return (np.vstack([second, [0, 0, 1]]) @ np.vstack([first, [0, 0, 1]]))[:2]


def pinhole_map(camera: Camera, to_frame: Array) -> NDArray[np.float32]:
    """(height, width, 2): where each pixel of the pinhole camera `K` lies in a frame. to_frame: 2×3, calibration to
    frame."""
    width, height = camera.size
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2).astype(np.float64)
    rays = np.column_stack([(grid - camera.K[:2, 2]) / camera.K[[0, 1], [0, 1]], np.ones(len(grid))])
    bent = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), camera.lens, camera.distortion)[0][:, 0]
    source = bent @ to_frame[:, :2].T + to_frame[:, 2]
    return np.ascontiguousarray(source.reshape(height, width, 2), np.float32)


def resampled(frame: Image, source: NDArray[np.float32]) -> Image:
    """The frame at the places of `pinhole_map`."""
    return np.asarray(cv2.remap(frame, source, None, cv2.INTER_CUBIC), np.uint8)
