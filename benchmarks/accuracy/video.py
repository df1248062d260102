"""How smooth and how delayed tracks are, and how accurate on Pose2Sim's clips, against the same frames alone.

    python -m benchmarks.accuracy.video CLIP|FOLDER [--fps N] [--focal PX] [--truth pose2sim.json --camera cam01]

Per track: mean root-relative joint acceleration, frame by frame and smoothed, m/s²; of joints faster than MOVING, how
far they are behind (along their velocity) and damped (towards where they turn), mm: means of the difference to the
frame-wise joints, in which the frames' noise cancels. FOLDER: all frames of a clip of tools/assets/build_pose2sim.py
(--every 1); accuracy is over protocol pose2sim's frames.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dpmesh.evaluate.registry import entry
from dpmesh.inference.predictor import Predictor
from dpmesh.metrics import MILLIMETRES, aligned_distances, distances
from dpmesh.skeletons import JOINTS30
from dpmesh.video.video import Video

MOVING = 0.5
"""Metres a second."""
LIMBS = [
    f"{side}_{joint}" for joint in ("Hip", "Knee", "Ankle", "Shoulder", "Elbow", "Wrist") for side in "LR"
]
FAR = 0.15
"""Share of the box's longer side beyond which a person is another one, as in protocol pose2sim."""
Rows = dict[tuple[int, int], tuple[Float[np.ndarray, "30 3"], Float[np.ndarray, "30 2"]]]
"""(track, frame) -> joints3d, joints2d."""


def motion(raw: Rows, solved: Rows, track: int, fps: float) -> str:
    frames = sorted(frame for number, frame in solved if number == track)
    seen = [i for i, frame in enumerate(frames) if (track, frame) in raw]
    ours = np.stack([solved[track, frame][0] for frame in frames]).astype(np.float64)
    theirs = np.stack([raw[track, frames[i]][0] for i in seen]).astype(np.float64)
    ours, theirs = ours - ours[:, :1], theirs - theirs[:, :1]
    velocity = np.gradient(ours, axis=0) * fps
    turning = (np.gradient(velocity, axis=0) * fps)[seen]
    velocity, off = velocity[seen], ours[seen] - theirs
    speed = np.linalg.norm(velocity, axis=-1)
    along = (off * velocity).sum(-1) / np.maximum(speed, 1e-9)
    inward = (off * turning).sum(-1) / np.maximum(np.linalg.norm(turning, axis=-1), 1e-9)
    moving = speed > MOVING
    behind, damped = (
        float(v[moving].mean()) * MILLIMETRES if moving.any() else 0.0 for v in (-along, inward)
    )
    alone, smooth = (np.linalg.norm(np.diff(v, 2, axis=0), axis=-1).mean() * fps**2 for v in (theirs, ours))
    return (
        f"track {track}: {len(frames)} frames, acceleration {alone:.1f} → {smooth:.1f} m/s²,"
        f" behind {behind:.1f} mm, damped {damped:.1f} mm, {moving.mean():.0%} moving"
    )


def accuracy(rows: Rows, path: Path, camera: str) -> str:
    stored = json.loads(path.read_text())
    where = stored["cameras"][camera]
    R, t, K = (np.array(where[name]) for name in "RtK")
    spans = [(a, b) for name, a, b in entry("pose2sim").protocol.selection.frames if name == camera]
    named = [stored["joint_names"].index(name) for name in LIMBS]
    own = [JOINTS30.index(name) for name in LIMBS]
    errors: list[tuple[float, float]] = []
    missed = 0
    for index, frame in enumerate(stored["frames"]):
        if not any(a <= frame < b for a, b in spans):
            continue
        truth = np.array(stored["joints"][index])[named, :3] @ R.T + t
        pixels = (truth @ K.T)[:, :2] / truth[:, 2:]
        box = np.array(stored["boxes"][index][list(stored["cameras"]).index(camera)])
        near = {
            key: float(np.median(np.linalg.norm(joints2d[own] - pixels, axis=1)))
            for key, (_, joints2d) in rows.items()
            if key[1] == frame
        }
        best = min(near, key=lambda key: near[key], default=None)
        if best is None or near[best] > FAR * (box[2:] - box[:2]).max():
            missed += 1
            continue
        got = rows[best][0][own].astype(np.float64)
        got, true = ((v - v[:2].mean(0))[None] for v in (got, truth))
        errors.append((float(distances(got, true).mean()), float(aligned_distances(got, true).mean())))
    mean = np.mean(errors, axis=0) if errors else [float("nan")] * 2
    return f"{mean[0]:.1f}/{mean[1]:.1f} mm over {len(errors)}, {missed} missed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip")
    parser.add_argument("--fps", type=float)
    parser.add_argument("--focal", type=float)
    parser.add_argument("--end", type=float, default=float("inf"))
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--camera", default="cam01")
    options = parser.parse_args()
    focal = options.focal
    if options.truth is not None:
        focal = json.loads(options.truth.read_text())["cameras"][options.camera]["K"][0][0]
    predictor = Predictor.from_pretrained()
    given = {"fps": options.fps, "end": options.end, "focal": focal, "static_camera": True}
    raw: Rows = {}
    for frame, scene in enumerate(Video(options.clip, predictor, **given)):
        for person in scene:
            if person.track is not None:
                raw[person.track, frame] = (person.joints3d, person.joints2d)
    tracks = Video(options.clip, predictor, **given).tracks()
    solved: Rows = {
        (int(tracks.track[i]), int(tracks.frame[i])): (tracks.joints3d[i], tracks.joints2d[i])
        for i in range(len(tracks.frame))
    }
    print(tracks, *tracks.notes, "floor" if tracks.ground is not None else "no floor")
    for track in tracks.numbers.tolist():
        print(motion(raw, solved, track, tracks.fps))
    if options.truth is not None:
        print("frames alone:", accuracy(raw, options.truth, options.camera))
        print("tracks:", accuracy(solved, options.truth, options.camera))


if __name__ == "__main__":
    main()
