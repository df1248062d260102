"""Crops a second from packed shards, on one core.

    python -m benchmarks.speed.loading [--people 400] [--json OUT.json]

Packs people of generated images with grain (1200×900; they compress differently from photographs), then reads them at
random with training's augmentation. Files are in the page cache.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: one core

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.machine import report_result
from dpmesh.data import open_source
from dpmesh.data.annotation import Annotation
from dpmesh.data.augment import AugmentConfig
from dpmesh.data.pack import PackConfig, pack
from dpmesh.data.synthetic.textures import backdrop

LIMIT = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=400)
    parser.add_argument("--json")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rng, people = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for k in range(10):
            scene = backdrop(rng, 900) * 255 + rng.normal(0, 5, (900, 900, 3))
            image = np.clip(cv2.resize(scene, (1200, 900)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / f"{k}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        for k in range(options.people):
            x, y = rng.uniform(50, 700), rng.uniform(50, 350)
            box = np.array([x, y, x + 200, y + 450])
            joints = rng.uniform(box[:2], box[2:], (30, 2)).astype(np.float32)
            K = np.array([[1000.0, 0, 600], [0, 1000, 450], [0, 0, 1]])
            ones, image = np.ones(30, np.float32), folder / f"{k % 10}.jpg"
            near = joints[None, :17] + np.float32(20)
            people.append(
                Annotation(
                    f"coco/{k}", image, (1200, 900), box, K, joints, ones,
                    neighbours=near, neighbour_flags=np.ones((1, 17), np.float32),
                )
            )  # fmt: skip
        start = time.perf_counter()
        pack(people, folder / "shards", "coco-train", PackConfig(per_shard=200))
        packing = time.perf_counter() - start
        size = sum(f.stat().st_size for f in (folder / "shards").glob("*.tar"))
        source = open_source("coco", folder / "shards")
        results = {}
        for label, config in (
            ("augmentation of training", AugmentConfig()),
            ("with shapes on every second person", AugmentConfig(p_shapes=0.5)),
            ("as it is", None),
        ):
            source.sample(0, rng, config)
            order = rng.permutation(len(source))
            wall, cpu = time.perf_counter(), time.process_time()
            for k in order:
                source.sample(int(k), np.random.default_rng([0, int(k)]), config)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            results[label] = {
                "crops_per_cpu_second": round(len(order) / cpu), "crops_per_wall_second": round(len(order) / wall)
            }  # fmt: skip
    report = {
        "command": f"python -m benchmarks.speed.loading --people {options.people}",
        "limit": f"at least {LIMIT} crops of 256×256 per second and core",
        "packing_people_per_second": round(len(people) / packing, 1),
        "bytes_per_person": round(size / len(people)), "results": results,
    }  # fmt: skip
    report_result(report, options.json)


if __name__ == "__main__":
    main()
