"""Checksums and contact sheet of SynthOcc: python tools/synthocc.py [--cases 840] [--sheet SHEET.jpg]

The checksum of all cases must be the one in src/dpmesh/evaluate/synthocc.py. The sheet shows for each subset
some cases as rows and the levels as columns, unselected: the first cases there are.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from collections import Counter

import cv2
import numpy as np
import torch

from dpmesh.data.synthocc.bodies import People
from dpmesh.data.synthocc.drawing import draw_case
from dpmesh.data.synthocc.labels import Label, checksum, label
from dpmesh.data.synthocc.scenes import CASES, MAIN, SUBSETS, case


def sheet(people: People, rows: int, first: int, side: int, marks: bool) -> np.ndarray:
    """Cases first, first + 1, ...: levels from left to right."""
    lines = []
    for number in range(first, first + rows):
        scenes = case(people, number)
        pictures = draw_case(people, scenes)
        if marks:
            for scene, picture in zip(scenes, pictures, strict=True):
                mark(picture, label(people, scene))
        small = [cv2.resize(p, (side, side), interpolation=cv2.INTER_AREA) for p in pictures]
        lines.append(np.concatenate(small, 1))
    return np.concatenate(lines)


def mark(picture: np.ndarray, one: Label) -> None:
    """Main joints: red hidden, yellow behind the own body, green in sight; circles: keypoints of the noise model."""
    for joint in np.flatnonzero(MAIN):
        colour = (255, 0, 0) if one.hidden[joint] else (0, 255, 0) if one.seen[joint] else (255, 255, 0)
        cv2.circle(picture, tuple(int(v) for v in one.joints2d[joint]), 2, colour, -1)
    for joint in np.flatnonzero(one.given):
        cv2.circle(picture, tuple(int(v) for v in one.points[joint]), 3, (0, 255, 255), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--sheet")
    parser.add_argument("--rows", type=int, default=2 * len(SUBSETS))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--marks", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    people = People()
    if options.sheet:
        picture = sheet(people, options.rows, options.first, options.side, options.marks)
        cv2.imwrite(options.sheet, picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
        return
    counts, things, attempts = Counter(), Counter(), []
    labels: list[Label] = []
    for number in range(options.cases):
        for scene in case(people, number):
            labels.append(label(people, scene))
            counts[f"{scene.subset} {scene.level}"] += 1
            if scene.thing is not None:
                things[scene.thing[0].family] += 1
        attempts.append(scene.attempt)
    print(f"{len(labels)} persons, {len({one.pose.tobytes() for one in labels})} poses with orientation")
    print("persons:", dict(sorted(counts.items())))
    print("things:", dict(things), "attempts: mean", np.mean(attempts), "most", max(attempts))
    print("labels:", checksum(labels))


if __name__ == "__main__":
    main()
