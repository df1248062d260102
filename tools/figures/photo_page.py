"""A page of overlays on photographs.

    python -m tools.figures.photo_page IMAGES docs/images/photographs.jpg [--weights W]

IMAGES was written by `python -m benchmarks.photos.fetch IMAGES`. The list of photos is fixed below, so that it is the
same for all weights. Each tile shows the photograph around its people with the bodies and the input keypoints (dots:
green confident, orange not), the same bodies from the side, and the failed tests of benchmarks/photos. Photographs
without a detected person are shown too.
"""

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from benchmarks.photos.images import film, stills
from benchmarks.photos.keypoints import CONFIDENT
from benchmarks.photos.person import Examiner
from benchmarks.photos.summary import on_floors
from dpmesh.body.files import free_body
from dpmesh.errors import DPMeshError
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.preprocess import MIN_DETECTED
from dpmesh.inference.scene import Scene
from dpmesh.render.overlay import LONGEST, Layer, draw_overlay, draw_side, palette

EXAMPLES = Path(__file__).parents[2] / "examples"
STILLS = (
    "astronaut", "balance", "behind_tree", "composite_hidden", "park", "two_people", "basketball1", "beam1_020",
    "beam2_020", "beam3_070", "beam4_020", "composite1_045", "composite4_045", "photographer", "portrait",
)  # fmt: skip
FRAMES = ("walking_010", "walking_020", "walking_060", "walking_140", "walking_213")
SIDE, COLUMNS, LIMIT = 190, 5, 118_000
"""Pixels of a tile's overlay, tiles in a row, bytes of the page."""


def chosen(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    for name, image in chain(stills(folder, EXAMPLES), film(folder)):
        if name in STILLS or name in FRAMES:
            yield name, image


def tile(name: str, scene: Scene, examiner: Examiner) -> np.ndarray:
    layers = [Layer(p.vertices, c) for p, c in zip(scene.people, palette(len(scene.people)), strict=True)]
    above = draw_overlay(scene.image, layers, scene.faces, scene.K)
    zoom = min(1.0, LONGEST / max(scene.image.shape[:2]))
    above, window = around(above, scene, zoom)
    for person in scene.people:
        for x, y, sure in person.keypoints2d:
            if sure > MIN_DETECTED:
                at = (int((x * zoom - window[0]) * window[2]), int((y * zoom - window[1]) * window[2]))
                cv2.circle(
                    above, at, 2, (60, 230, 60) if sure >= CONFIDENT else (255, 150, 0), -1, cv2.LINE_AA
                )
    below = cv2.resize(draw_side(layers, scene.faces), (SIDE, SIDE * 3 // 4), interpolation=cv2.INTER_AREA)
    rows = on_floors([examiner.row(name, i, p) for i, p in enumerate(scene.people)])
    wrong = sorted({what for row in rows for what in row.failures}) or (
        [] if rows else ["no person detected"]
    )
    label = np.full((30, SIDE, 3), 255, np.uint8)
    cv2.putText(label, name, (2, 11), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.putText(label, ", ".join(wrong), (2, 25), cv2.FONT_HERSHEY_SIMPLEX, 0.34, (200, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([label, above, below])


def around(image: np.ndarray, scene: Scene, zoom: float) -> tuple[np.ndarray, tuple[float, float, float]]:
    """A square of SIDE pixels around the people (all of it without any), and its left, top and scale."""
    height, width = image.shape[:2]
    boxes = scene.stacked("box") * zoom if scene.people else np.array([[0, 0, width, height]], np.float32)
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    side = float((high - low).max()) * (1.25 if scene.people else 1.0)
    left, top = (low + high) / 2 - side / 2
    scale = SIDE / side
    move = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    small = cv2.warpAffine(
        cv2.GaussianBlur(image, (0, 0), max(0.01, 0.4 / scale)), move, (SIDE, SIDE), borderValue=(225,) * 3
    )
    return small, (float(left), float(top), scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--no-refine", dest="refine", action="store_false")
    options = parser.parse_args()
    predictor = Predictor.from_pretrained(options.weights, "cpu", 1, refine=options.refine)
    examiner = Examiner(free_body())
    tiles = [tile(name, predictor(image), examiner) for name, image in chosen(options.images)]
    if len(tiles) != len(STILLS) + len(FRAMES):
        raise SystemExit(f"{len(STILLS) + len(FRAMES) - len(tiles)} images are missing: fetch them again")
    rows = [np.concatenate(tiles[i : i + COLUMNS], 1) for i in range(0, len(tiles), COLUMNS)]
    page = np.ascontiguousarray(np.concatenate(rows)[..., ::-1])
    for quality in range(85, 30, -5):
        data = cv2.imencode(".jpg", page, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= LIMIT:
            break
    else:
        raise SystemExit(f"{len(data)} bytes at quality {quality}: show fewer images")
    options.out.write_bytes(data)
    print(f"{len(tiles)} images, {len(data)} bytes, quality {quality} → {options.out}")


if __name__ == "__main__":
    try:
        main()
    except DPMeshError as error:
        raise SystemExit(str(error)) from None
