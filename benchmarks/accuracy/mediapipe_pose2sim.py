"""MediaPipe Pose on the images of pose2sim (`dpmesh eval run pose2sim`), with the same matching and measures.

MediaPipe needs an environment of its own (mediapipe_pose.py says which); the first command runs there.

    MP/bin/python -m benchmarks.accuracy.mediapipe_pose2sim ask DATA --work WORK
    python -m benchmarks.accuracy.mediapipe_pose2sim score DATA --work WORK [--tuning] [--json FILE]

It is asked twice, in static mode: with the whole image, where it detects one person itself, and with the square window
of 1.25 times the true box. Its world landmarks are compared as metres, relative to the middle of the hips. They are
those of its own crop's camera: `score` turns them to the image's camera about the true box, which helps it.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.mediapipe_pose import LANDMARKS, NAMES

FILE = "mediapipe.npz"
SETS = ("clean", "occluded")
MODES = ("whole image", "true box")
WINDOW = 1.25


def ask(data: Path, work: Path) -> None:
    """WORK/mediapipe.npz: world (set, mode, frame, camera, 12, 3), metres; image (…, 12, 3), px and visibility."""
    import cv2
    import mediapipe

    pose = mediapipe.solutions.pose.Pose(static_image_mode=True, model_complexity=1)
    content = json.loads((data / "pose2sim.json").read_text())
    frames, cameras, boxes = content["frames"], list(content["cameras"]), np.array(content["boxes"])
    world = np.full((len(SETS), len(MODES), len(frames), len(cameras), 12, 3), np.nan)
    flat = world.copy()
    for s, name in enumerate(SETS):
        for f, frame in enumerate(frames):
            for c, camera in enumerate(cameras):
                image = cv2.imread(str(data / name / camera / f"{frame:03d}.jpg"))[..., ::-1]
                x1, y1, x2, y2 = boxes[f, c]
                side = WINDOW * max(x2 - x1, y2 - y1)
                corner = np.array([x1 + x2 - side, y1 + y2 - side]) / 2
                scale = 512 / side
                move = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
                window = cv2.warpAffine(image, move, (512, 512), flags=cv2.INTER_AREA)
                for m, (pixels, size, start) in enumerate(
                    ((image, image.shape[1::-1], (0.0, 0.0)), (window, (side, side), corner))
                ):
                    answer = pose.process(np.ascontiguousarray(pixels))
                    if answer.pose_landmarks is None:
                        continue
                    solid = [answer.pose_world_landmarks.landmark[i] for i in LANDMARKS]
                    points = [answer.pose_landmarks.landmark[i] for i in LANDMARKS]
                    world[s, m, f, c] = [[p.x, p.y, p.z] for p in solid]
                    flat[s, m, f, c] = [
                        [p.x * size[0] + start[0], p.y * size[1] + start[1], p.visibility] for p in points
                    ]
    work.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(work / FILE, world=world, image=flat, version=mediapipe.__version__)


def score(data: Path, work: Path, tuning: bool) -> dict[str, Any]:
    """Figures of each protocol and mode, by camera and of all."""
    from dpmesh.evaluate.registry import open_source
    from dpmesh.evaluate.whole_images import WholeImageSource

    stored = np.load(work / FILE)
    result: dict[str, Any] = {"mediapipe": str(stored["version"])}
    for s, protocol in enumerate(("pose2sim", "pose2sim-occluded")):
        source = open_source(protocol + "-tuning" * tuning, data)
        assert isinstance(source, WholeImageSource)
        for m, mode in enumerate(MODES):
            rows: list[tuple[str, np.ndarray | None]] = []
            for record in source.records:
                at = place(data, record)
                answer = stored["world"][s, m][at], stored["image"][s, m][at]
                rows.append((record.sequence, _errors(source, record, *answer)))
            names = ["all", *dict.fromkeys(camera for camera, _ in rows)]
            result[f"{protocol}, {mode}"] = {
                name: _means([one for camera, one in rows if name in ("all", camera)]) for name in names
            }
    return result


def place(data: Path, record: Any) -> tuple[int, int]:
    """Index of the record's frame and camera in `ask`'s arrays."""
    content = json.loads((data / "pose2sim.json").read_text())
    cameras = list(content["cameras"])
    return content["frames"].index(int(record.image.stem)), cameras.index(record.sequence)


def _errors(source: Any, record: Any, world: np.ndarray, flat: np.ndarray) -> np.ndarray | None:
    """MPJPE, PA-MPJPE, lateral, depth in mm; None for a miss."""
    from dpmesh.evaluate.whole_images import keypoint_distance
    from dpmesh.geometry.camera import crop_rotation, project
    from dpmesh.geometry.crop import Crop
    from dpmesh.metrics import across_and_along, mpjpe, pa_mpjpe
    from dpmesh.skeletons import COCO17, H36M17

    if not np.isfinite(world).all():
        return None
    joints = record.truth.joints[:, :3]
    coco = np.zeros((17, 3))
    coco[[COCO17.index(name) for name in NAMES]] = flat
    body = [H36M17.index(name) for name in COCO17.joints[5:]]
    limit = source.protocol.crop.match * (record.box[2:] - record.box[:2]).max()
    if keypoint_distance(coco, project(joints[body], record.K), source.protocol.keypoints.threshold) > limit:
        return None
    turn = crop_rotation(record.K, Crop.around(record.box.astype(np.float32), WINDOW))
    hips = [NAMES.index("L_Hip"), NAMES.index("R_Hip")]
    true = joints[[H36M17.index(name) for name in NAMES]]
    root = true[hips].mean(0)
    got, true = (world - world[hips].mean(0)) @ turn.T, true - root
    lateral, depth = across_and_along(got[None], true[None], root[None])
    return np.array(
        [mpjpe(got[None], true[None])[0], pa_mpjpe(got[None], true[None])[0], lateral[0], depth[0]]
    )


def _means(rows: list[np.ndarray | None]) -> dict[str, float | int]:
    there = [row for row in rows if row is not None]
    means = np.mean(there, axis=0) if there else np.full(4, np.nan)
    names = ("MPJPE", "PA-MPJPE", "lateral", "depth")
    return {
        "images": len(rows),
        "misses": len(rows) - len(there),
        **{name: round(float(mean), 1) for name, mean in zip(names, means, strict=True)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("ask", "score"))
    parser.add_argument("data", type=Path, help="the folder with pose2sim.json")
    parser.add_argument("--work", type=Path, default=Path("mediapipe_work"))
    parser.add_argument("--tuning", action="store_true", help="the other split")
    parser.add_argument("--json")
    options = parser.parse_args()
    if options.step == "ask":
        ask(options.data, options.work)
        return
    from benchmarks.machine import report_result

    report_result(score(options.data, options.work, options.tuning), options.json)


if __name__ == "__main__":
    main()
