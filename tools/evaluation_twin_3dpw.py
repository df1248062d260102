"""3DPW in miniature: the official pickles, as Python 2 wrote them, and the JSON files of 3DCrowdNet and JOTR."""

import io
import json
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from evaluation_twin_people import FOCAL, HEIGHT, WIDTH, K, Sequence, World, keypoints, picture, project
from scipy.spatial.transform import Rotation

from dpmesh.skeletons import COCO17


class Python2Pickler(pickle._Pickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Writes what Python 2's cPickle wrote: byte strings for text and for the arrays' memory, numpy.core's names."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # pyright: ignore[reportAttributeAccessIssue]

    def save_text(self, value: str | bytes) -> None:
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(
            b"U" + bytes([len(raw)]) + raw if len(raw) < 256 else b"T" + len(raw).to_bytes(4, "little") + raw
        )
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module, name = obj.__module__, name or obj.__qualname__
        module = module.replace("numpy._core", "numpy.core")
        self.write(b"c" + f"{module}\n{name}\n".encode())
        self.memoize(obj)

    dispatch[type] = dispatch[type(pickle.dumps)] = dispatch[type(json.dumps)] = save_global


def python2(content: Any) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue()


def write_3dpw_official(root: Path, sequences: list[Sequence]) -> None:
    for s in sequences:
        frames = len(s.cam_poses)
        content = {
            "sequence": s.name,
            "genders": [line[0].gender[0] for line in s.persons],
            "betas": [line[0].betas for line in s.persons],
            "poses": [np.stack([m.pose for m in line]) for line in s.persons],
            "trans": [np.stack([m.trans for m in line]) for line in s.persons],
            "jointPositions": [np.stack([m.joints24.reshape(-1) for m in line]) for line in s.persons],
            "poses2d": list(s.poses2d),
            "campose_valid": list(s.valid),
            "cam_poses": s.cam_poses,
            "cam_intrinsics": K,
            "img_frame_ids": np.arange(frames),
            "texture_maps": [],
            "poses_60Hz": [np.zeros((2 * frames, 72)) for _ in s.persons],
        }
        path = root / "3DPW" / "sequenceFiles" / s.split / f"{s.name}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(python2(content))


def write_3dpw_pictures(root: Path, world: World, sequences: list[Sequence]) -> None:
    faces = world.bodies["neutral"].faces.numpy()
    for s in sequences:
        for frame in range(len(s.cam_poses)):
            if s.valid[:, frame].any() or frame == 0:
                meshes = [s.vertices(p, frame) for p in range(len(s.persons)) if s.valid[p, frame]]
                picture(
                    root / "3DPW" / "imageFiles" / s.name / f"image_{frame:05d}.jpg", meshes, faces, world.rng
                )


def write_3dpw_json(root: Path, world: World, sequences: list[Sequence]) -> None:
    """As 3DCrowdNet's and JOTR's files, derived by the published recipe (J0 of the neutral body)."""
    wanted = {
        "3DPW_latest_test": lambda s, f, told: s.split == "test",
        "3DPW_latest_validation": lambda s, f, told: s.split == "validation",
        "3DPW_oc": lambda s, f, told: s.name in ("outdoors_fencing_01", "courtyard_backpack_00") and told,
        "3DPW_pc": lambda s, f, told: s.name == "courtyard_hug_00" and f >= 100 and told,
    }
    for name, chosen in wanted.items():
        images, annotations, crowd = [], [], {}
        for s in sequences:
            for frame in range(len(s.cam_poses)):
                rows = [
                    _annotation(world, s, p, frame)
                    for p in range(len(s.persons))
                    if s.valid[p, frame] and chosen(s, frame, bool(s.poses2d[p, frame].any()))
                ]
                rows = [row for row in rows if row is not None]
                if not rows:
                    continue
                number = 7000 + len(images)
                R, t = s.cam_poses[frame, :3, :3], s.cam_poses[frame, :3, 3]
                images.append({
                    "id": number, "file_name": f"image_{frame:05d}.jpg", "sequence": s.name, "frame_idx": frame,
                    "width": WIDTH, "height": HEIGHT,
                    "cam_param": {
                        "focal": [FOCAL, FOCAL], "princpt": [WIDTH / 2, HEIGHT / 2], "R": R.tolist(), "t": t.tolist(),
                    },
                })  # fmt: skip
                for row in rows:
                    annotations.append({"id": 500 + len(annotations), "image_id": number, **row})
                    if name.endswith("validation") and annotations[-1]["id"] != 501:  # one has no match
                        joints = np.array(row["joints30"])
                        coco = keypoints(joints, COCO17, world.rng)
                        coco[:, 2] = 0.7
                        key = str(annotations[-1]["id"])
                        crowd[key] = {"coco_joints": coco.tolist(), "img_id": number}
        for row in annotations:
            row.pop("joints30")
        folder = root / "3DPW"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps({"images": images, "annotations": annotations}))
        if crowd:
            (folder / "3DPW_validation_crowd_hhrnet_result.json").write_text(json.dumps(crowd))


def _annotation(world: World, s: Sequence, person: int, frame: int) -> dict[str, Any] | None:
    m, R, t = s.persons[person][frame], s.cam_poses[frame, :3, :3], s.cam_poses[frame, :3, 3]
    joints = m.joints24 @ R.T + t
    pixels = project(joints)
    inside = (joints[:, 2] > 0) & (pixels >= 0).all(1) & (pixels < [WIDTH, HEIGHT]).all(1)
    if not inside.any():
        return None
    pose = m.pose.copy()
    pose[:3] = (Rotation.from_matrix(R) * Rotation.from_rotvec(pose[:3])).as_rotvec()
    J0 = world.pose("neutral", np.zeros(72), m.betas)[2][0]
    low, high = pixels[inside].min(0), pixels[inside].max(0)
    middle, size = (low + high) / 2, (high - low) * 1.2
    return {
        "person_id": person,
        "bbox": [*(middle - size / 2), *size],
        "joint_cam": joints.tolist(),
        "joint_img": pixels.tolist(),
        "fitted_joint_cam": joints.tolist(),
        "openpose_result": s.poses2d[person, frame].T.tolist(),
        "smpl_param": {
            "pose": pose.tolist(), "shape": m.betas.tolist(), "trans": (R @ m.trans + t - J0 + R @ J0).tolist(),
            "gender": m.gender,
        },
        "joints30": (m.joints30 @ R.T + t).tolist(),
    }  # fmt: skip
