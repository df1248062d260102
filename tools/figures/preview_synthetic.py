"""A contact sheet of synthetic samples: true joints, the network's input, what is hidden.

Green and blue limbs: the person's left and right, true. Rings: network input. Dots: true joint, white where
visible, red where hidden.
Usage: python -m tools.figures.preview_synthetic OUT.jpg [--people 48] [--columns 8] [--seed 0] [--size 256]
           [--looks FILE]
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from dpmesh.body.files import population_body
from dpmesh.data.poses import PoseBank
from dpmesh.data.sample import Sample
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.skeletons import JOINTS30

LEFT, RIGHT, MIDDLE = (60, 220, 60), (70, 130, 255), (255, 220, 60)


def draw(sample: Sample, size: int) -> np.ndarray:
    """The crop with joints over it, RGB size × size."""
    image = cv2.resize(sample.crop, (size, size), interpolation=cv2.INTER_AREA)
    k = size / 256

    def at(point: np.ndarray) -> tuple[int, int]:
        return round(float(np.clip(point[0], -2000, 2000)) * k), round(
            float(np.clip(point[1], -2000, 2000)) * k
        )

    for a, b in JOINTS30.limbs:
        names = JOINTS30.joints[a] + JOINTS30.joints[b]
        colour = LEFT if "L_" in names else RIGHT if "R_" in names else MIDDLE
        cv2.line(image, at(sample.joints2d[a]), at(sample.joints2d[b]), colour, 1, cv2.LINE_AA)
    for j in range(30):
        colour = (255, 255, 255) if sample.joint_visible[j] else (255, 30, 30)
        cv2.circle(image, at(sample.joints2d[j]), 1, colour, -1)
        if sample.visible[j]:
            cv2.circle(image, at(sample.joints[j]), 3, (255, 0, 255), 1, cv2.LINE_AA)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--people", type=int, default=48)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--quality", type=int, default=85)
    parser.add_argument("--plain", action="store_true", help="images without joints")
    parser.add_argument(
        "--looks", type=Path, help="a looks file (tools/assets/build_looks.py): everyone wears it"
    )
    options = parser.parse_args()
    people = SyntheticPeople(
        options.seed, PoseBank.load("train"), population_body(), options.looks, share=1.0
    )
    samples = [people.sample(index) for index in range(options.people)]
    tiles = [
        cv2.resize(s.crop, (options.size,) * 2) if options.plain else draw(s, options.size) for s in samples
    ]
    rows = [np.concatenate(tiles[i : i + options.columns], 1) for i in range(0, len(tiles), options.columns)]
    sheet = np.ascontiguousarray(np.concatenate(rows)[..., ::-1])
    cv2.imwrite(options.out, sheet, [cv2.IMWRITE_JPEG_QUALITY, options.quality])
    print(f"{options.out}: {len(tiles)} samples, {sheet.shape[1]}×{sheet.shape[0]} px")


if __name__ == "__main__":
    main()
