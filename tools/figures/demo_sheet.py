"""One image of the results of `make demo`.

    python -m tools.figures.demo_sheet demo-out docs/images/demo.jpg [--names A B C]

Photograph with overlay on top, the same people from the side below.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np


def fit(path: Path, height: int, width: int | None = None) -> np.ndarray:
    """The image scaled to a height; with a width, in the middle of a white area."""
    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"{path} cannot be read; run make demo first")
    scale = height / image.shape[0]
    if width is not None:
        scale = min(scale, width / image.shape[1])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    if width is None:
        return image
    sheet = np.full((height, width, 3), 255, np.uint8)
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--names", nargs="*")
    parser.add_argument("--height", type=int, default=300)
    options = parser.parse_args()
    names = options.names or sorted(p.parent.name for p in options.results.glob("*/overlay.png"))
    columns = []
    for name in names:
        above = fit(options.results / name / "overlay.png", options.height)
        below = fit(options.results / name / "side.png", options.height * 2 // 3, above.shape[1])
        columns.append(np.concatenate([above, below]))
    gap = np.full((columns[0].shape[0], 8, 3), 255, np.uint8)
    sheet = np.concatenate([part for column in columns for part in (column, gap)][:-1], axis=1)
    cv2.imwrite(str(options.out), sheet, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
