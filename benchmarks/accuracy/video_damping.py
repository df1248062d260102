"""How far moving joints are behind their true places, and damped towards where they turn, before and after smoothing.

    python -m benchmarks.accuracy.video_damping [--clips 16] [--data CACHE]

The first clips of synthocc-video, as `dpmesh video --static-camera` predicts them. Root-relative joints that truly move
faster than MOVING; means over joints and frames of the difference to truth along the true velocity and the true
acceleration, mm. The network damps motion by itself, so what smoothing adds is the difference of the two rows.
"""

import argparse
import json
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks.accuracy.video import MOVING
from dpmesh.data.synthocc.clips import Clip, clip
from dpmesh.data.synthocc.motion import FPS
from dpmesh.evaluate.registry import open_source
from dpmesh.evaluate.synthocc_video import ClipSource
from dpmesh.inference.detections import box_iou
from dpmesh.inference.predictor import Predictor
from dpmesh.metrics import MILLIMETRES
from dpmesh.video.recording import Recording
from dpmesh.video.tracks import Tracks
from dpmesh.video.video import Video
from dpmesh.video.windows import raw_tracks

MATCHED = 0.5
"""Overlap of the joints' boxes."""


def differences(one: Clip, tracks: Tracks) -> list[np.ndarray]:
    """Behind and damped, metres, of each moving joint."""
    found: list[np.ndarray] = []
    pixels = one.pixels(one.joints)
    boxes, own = (np.concatenate([p.min(-2), p.max(-2)], -1) for p in (pixels, tracks.joints2d.astype(float)))
    for person, joints in enumerate(one.joints - one.joints[:, :, :1]):
        velocity = np.gradient(joints, axis=0) * FPS
        turning = np.gradient(velocity, axis=0) * FPS
        for t in range(len(joints)):
            rows = np.flatnonzero(tracks.frame == t)
            overlap = box_iou(boxes[person, t][None], own[rows])[0]
            if not len(rows) or overlap.max() < MATCHED:
                continue
            points = tracks.joints3d[rows[overlap.argmax()]].astype(float)
            off = points - points[:1] - joints[t]
            along, inward = (
                (off * way[t]).sum(-1) / np.maximum(np.linalg.norm(way[t], axis=-1), 1e-9)
                for way in (velocity, turning)
            )
            moving = np.linalg.norm(velocity[t], axis=-1) > MOVING
            found.append(np.stack([-along[moving], inward[moving]], 1))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--data", type=Path, help="a folder that keeps the rendered frames")
    options = parser.parse_args()
    source, predictor = open_source("synthocc-video", options.data), Predictor.from_pretrained()
    assert isinstance(source, ClipSource)
    found: dict[str, list[np.ndarray]] = {"frames alone": [], "tracks": []}
    for number in range(options.clips):
        one = clip(source.people, number)
        with tempfile.TemporaryDirectory() as name, source.folder(one) as folder:
            video = Video(folder, predictor, fps=FPS, static_camera=True, focal=one.focal)
            with closing(Recording(Path(name))) as recording:
                video.record(recording)
                found["frames alone"] += differences(one, raw_tracks(recording, FPS))
                found["tracks"] += differences(one, video.solve(recording))
        for name, rows in found.items():
            behind, damped = MILLIMETRES * np.concatenate(rows).mean(0)
            figures = {"clips": number + 1, "behind_mm": round(behind, 1), "damped_mm": round(damped, 1)}
            print(json.dumps({name: figures}), flush=True)


if __name__ == "__main__":
    main()
