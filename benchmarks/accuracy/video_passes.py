"""Forward passes a frame of a video: one, two (the crop and its mirror image), or one of them in turn.

    python -m benchmarks.accuracy.video_passes DATA VIDEOS [--every 2] [--json OUT.json]

DATA: pose2sim.json of `dpmesh eval run pose2sim` (docs/guide/evaluation.md); VIDEOS: the folder with cam01.mp4 to
cam04.mp4 that it was built from. The man's track is compared with the triangulated joints of every fourth frame:
COCO's twelve of the limbs, relative to the middle of the hips (mm), also after Procrustes alignment; and the root mean
square of the joints' acceleration relative to the pelvis (m/s²).
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.machine import commit, machine
from dpmesh import Predictor, Tracks, Video
from dpmesh.metrics import mpjpe, pa_mpjpe
from dpmesh.skeletons import COCO17, JOINTS30
from dpmesh.video.video import Passes

LIMBS = [f"{side}_{part}" for part in ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle") for side in "LR"]


def tracked(video: Path, focal: float, every: int, passes: Passes) -> Tracks:
    return Video(video, Predictor.from_pretrained(), every=every, focal=focal, passes=passes).tracks()


def errors(tracks: Tracks, about: dict[str, Any], content: dict[str, Any]) -> dict[str, float]:
    rows = [COCO17.index(name) for name in LIMBS]
    truth = np.array(content["joints"])[:, rows]
    points = truth[..., :3] @ np.array(about["R"]).T + about["t"]
    number = max(
        tracks.numbers, key=lambda n: np.ptp(tracks.box[tracks.of(int(n))][:, [1, 3]], axis=1).mean()
    )
    own = tracks.of(int(number))
    at = {int(frame): row for frame, row in zip(tracks.frame[own], own, strict=True)}
    kept = [i for i, frame in enumerate(content["frames"]) if frame in at and (truth[i, :, 3] > 0).all()]
    mine = [JOINTS30.index(name) for name in LIMBS]
    predicted = tracks.joints3d[[at[content["frames"][i]] for i in kept]][:, mine].astype(np.float64)
    hips = [LIMBS.index("L_Hip"), LIMBS.index("R_Hip")]
    wanted = points[kept]
    centred = [p - p[:, hips].mean(1, keepdims=True) for p in (predicted, wanted)]
    relative = tracks.joints3d[own] - tracks.joints3d[own][:, :1]
    step = float(np.median(np.diff(tracks.time[own])))
    jerk = np.linalg.norm(relative[2:] - 2 * relative[1:-1] + relative[:-2], axis=-1) / step**2
    return {
        "frames": len(kept),
        "mpjpe_mm": float(np.mean(mpjpe(*centred))),
        "pa_mm": float(np.mean(pa_mpjpe(predicted, wanted))),
        "acceleration": float(np.sqrt((jerk**2).mean())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    content = json.loads((options.data / "pose2sim.json").read_text())
    result: dict[str, Any] = {"commit": commit(), "machine": machine(), "every": options.every}
    for passes in get_args(Passes):
        rows: dict[str, dict[str, float]] = {}
        for name, about in content["cameras"].items():
            start = time.process_time()
            tracks = tracked(options.videos / f"{name}.mp4", about["K"][0][0], options.every, passes)
            seconds = (time.process_time() - start) / tracks.frames
            rows[name] = {**errors(tracks, about, content), "cpu_s_per_frame": round(seconds, 3)}
            print(passes, name, rows[name], flush=True)
        mean = {key: float(np.mean([row[key] for row in rows.values()])) for key in rows["cam01"]}
        result[passes] = {**rows, "mean": mean}
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
