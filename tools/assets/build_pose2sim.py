"""The evaluation set "pose2sim" from the demonstration videos of the PyPI package pose2sim (BSD-3-Clause).

A man on a treadmill before four synchronised, calibrated cameras, 100 frames at 60 Hz (Demo_SinglePerson), and the same
videos with a woman rendered into them (Demo_MultiPerson). No joints come with them: they are triangulated from the
clean frames with the keypoints of the shipped detector and of each --pose-model.

    pip download --no-deps pose2sim==0.10.49
    python -m tools.assets.build_pose2sim pose2sim-0.10.49-py3-none-any.whl DATA/Pose2Sim [--pose-model MODEL.onnx]

Written: pose2sim.json (its fields: evaluate/readers/pose2sim.py) and {clean,occluded}/CAMERA/FRAME.jpg. All images of a
camera are resampled to one pinhole image, that of the calibration: the lens's distortion is removed; two of the videos
are scaled with bars on two sides; and the videos with the woman are shifted and scaled by up to 12 px, which is
measured from the background.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from dpmesh.errors import DPMeshError
from dpmesh.inference.detector import Detector
from dpmesh.inference.user_models.pose import PoseModel
from dpmesh.io import atomic_path, atomic_write
from dpmesh.skeletons import COCO17, convert
from tools.assets.pose2sim_videos import (
    CALIBRATION,
    CLEAN,
    OCCLUDED,
    Array,
    Camera,
    Image,
    combined,
    letterbox,
    pinhole_map,
    read_cameras,
    read_video,
    resampled,
    similarity,
    unpack,
)
from tools.assets.refine_cameras import refine
from tools.assets.triangulate import Joints, View, bones, project, smooth, triangulate

Estimator = Callable[[Image, Array], Array]
"""RGB image and box (xyxy) to COCO-17 keypoints (x, y, confidence)."""
EVERY = 4
MARGIN = 0.12
"""Of a box around the joints, relative to its sides: joints lie inside the body."""
BONES = [
    (COCO17.index(f"{side}_{a}"), COCO17.index(f"{side}_{b}"))
    for a, b in (("Hip", "Knee"), ("Knee", "Ankle"), ("Shoulder", "Elbow"), ("Elbow", "Wrist"))
    for side in "LR"
]


def estimators(pose_models: list[Path]) -> list[tuple[str, Estimator]]:
    """The shipped detector's keypoints in a given box, and those of each model."""
    shipped = Detector()

    def own(image: Image, box: Array) -> Array:
        (found,) = shipped.keypoints_in_boxes(image, box[None].astype(np.float32))
        return found.keypoints.astype(np.float64)

    def other(path: Path) -> Estimator:
        model = PoseModel(path)
        return lambda image, box: convert(
            model.keypoints(image, box.astype(np.float32)), model.joints, COCO17
        ).astype(np.float64)

    return [("shipped", own), *((path.name, other(path)) for path in pose_models)]


def man_in(image: Image, detector: Detector) -> Array:
    """The largest person box; in these videos the man's."""
    boxes = detector.boxes(image)[0]
    if not len(boxes):
        return np.array([0.0, 0.0, image.shape[1], image.shape[0]])
    return boxes[np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).argmax()].astype(np.float64)


def around(points: Array, size: tuple[int, int]) -> Array:
    """The box of a person (xyxy), from joints (j, 2), inside an image of (width, height)."""
    low, high = points.min(0), points.max(0)
    margin = (high - low).max() * MARGIN
    limit = np.array(size, np.float64)
    return np.concatenate([(low - margin).clip(0, limit), (high + margin).clip(0, limit)])


def truth(
    images: list[list[Image]], cameras: list[Camera], methods: list[tuple[str, Estimator]]
) -> tuple[Joints, Array, list[Camera]]:
    """Joints (f, 17) from images[camera][frame], RGB, in two rounds: in detected boxes, then in the boxes of the first
    round's joints. Also the boxes (f, c, 4) of the last, and the cameras, whose places each round refines."""
    detector = Detector()
    boxes = np.array([[man_in(image, detector) for image in one] for one in images]).swapaxes(0, 1)
    joints: Joints | None = None
    for _ in range(2):
        points = {
            (index, name): np.array([method(image, boxes[f, index]) for f, image in enumerate(images[index])])
            for index in range(len(cameras))
            for name, method in methods
        }
        cameras = refine(cameras, _views(cameras, points, EVERY))
        joints = smooth(triangulate(_views(cameras, points)))
        boxes = np.array(
            [[around(project(one, camera.P), camera.size) for camera in cameras] for one in joints.joints]
        )
    assert joints is not None
    return joints, boxes, cameras


def _views(cameras: list[Camera], points: dict[tuple[int, str], Array], step: int = 1) -> list[View]:
    return [View(index, cameras[index].P, one[::step]) for (index, _), one in points.items()]


def build(
    package: Path, out: Path, methods: list[tuple[str, Estimator]], every: int = EVERY
) -> dict[str, Any]:
    """Everything of the module's docstring; returns what is in pose2sim.json. Raises InputError."""
    with tempfile.TemporaryDirectory() as folder:
        root = unpack(package, Path(folder)) / "Pose2Sim"
        cameras = read_cameras((root.parent / CALIBRATION).read_text())
        images: list[list[Image]] = []
        maps: list[dict[str, Any]] = []
        for camera in cameras:
            clean = read_video(root / CLEAN / "videos" / f"{camera.name}.mp4")
            other = read_video(root / OCCLUDED / "videos" / f"{camera.name}.mp4")
            count = min(len(clean), len(other))
            to_clean = letterbox((clean[0].shape[1], clean[0].shape[0]), camera)
            some = [count // 10, count // 2, count - 1]
            move, residual = similarity([clean[f] for f in some], [other[f] for f in some])
            to_other = combined(move, to_clean)
            maps.append({"occluded": to_other.tolist(), "residual_px": round(residual, 3)})
            source = pinhole_map(camera, to_clean)
            images.append([cv2.cvtColor(resampled(f, source), cv2.COLOR_BGR2RGB) for f in clean[:count]])
            source = pinhole_map(camera, to_other)
            for frame in range(0, count, every):
                write_image(out / "clean" / camera.name / f"{frame:03d}.jpg", images[-1][frame][..., ::-1])
                composed = resampled(other[frame], source)
                write_image(out / "occluded" / camera.name / f"{frame:03d}.jpg", composed)
    joints, boxes, refined = truth(images, cameras, methods)
    frames = list(range(0, len(joints.joints), every))
    lengths = bones(joints, BONES)
    content: dict[str, Any] = {
        "keypoints": [name for name, _ in methods],
        "joint_names": list(COCO17.joints),
        "frames": frames,
        "cameras": {
            camera.name: {
                "size": camera.size,
                "K": camera.K.tolist(),
                "R": camera.R.tolist(),
                "t": camera.t.tolist(),
                **one,
                "turned_degrees": round(
                    float(np.rad2deg(Rotation.from_matrix(camera.R @ old.R.T).magnitude())), 2
                ),
            }
            for camera, old, one in zip(refined, cameras, maps, strict=True)
        },
        "joints": np.concatenate([joints.joints, joints.measured[..., None]], 2)[frames].round(5).tolist(),
        "residual_px": np.nan_to_num(joints.residual[frames], nan=-1).round(2).tolist(),
        "boxes": boxes[frames].round(1).tolist(),
        "bones": {
            f"{COCO17.joints[a]}-{COCO17.joints[b]}": [round(float(v) * 1000, 1) for v in row]
            for (a, b), row in zip(BONES, lengths, strict=True)
        },
    }
    atomic_write(out / "pose2sim.json", json.dumps(content) + "\n")
    return content


def write_image(path: Path, image: Image) -> None:
    """BGR, JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        assert done
        part.write_bytes(data.tobytes())


def summary(content: dict[str, Any]) -> str:
    """Of the residuals and the bones, for the terminal."""
    measured = np.array(content["joints"])[..., 3] > 0
    residual = np.array(content["residual_px"])
    lines = [f"keypoints: {', '.join(content['keypoints'])}; {len(content['frames'])} frames"]
    for index, name in enumerate(content["joint_names"]):
        known = measured[:, index]
        own = residual[known, index]
        own = own[own >= 0]
        middle = f"{np.median(own):.1f}" if len(own) else "–"
        lines.append(f"{name:12} measured {known.sum():3} of {len(known)}, residual {middle} px")
    lines += [f"{name:22} {mean:6.1f} ± {spread:.1f} mm" for name, (mean, spread) in content["bones"].items()]
    lines += [
        f"{name}: turned by {c['turned_degrees']}°; clean to occluded, residual {c['residual_px']} px"
        for name, c in content["cameras"].items()
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path, help="the wheel, the source archive, or the folder of pose2sim")
    parser.add_argument("out", type=Path)
    parser.add_argument("--pose-model", type=Path, action="append", default=[], metavar="MODEL.onnx")
    parser.add_argument("--every", type=int, default=EVERY, metavar="N", help="keep every Nth frame")
    options = parser.parse_args()
    try:
        content = build(options.package, options.out, estimators(options.pose_model), options.every)
    except DPMeshError as error:
        print(error, file=sys.stderr)
        return 1
    print(summary(content))
    return 0


if __name__ == "__main__":
    sys.exit(main())
