"""The evaluation sets in miniature: files in the exact layouts of the real ones, filled with made-up people.

python tools/evaluation_twin.py DIR

DIR/data gets 3DPW (official pickles and JSON), 3DOH (both layouts) and Panoptic; DIR/assets gets stand-ins for SMPL
(the free body with 14 vertices taken away, so that it has SMPL's 6,890) and for the Human3.6M regressor. Then:
DPMESH_ASSETS=DIR/assets dpmesh eval 3dpw --data DIR/data --out DIR/out

The people are chosen to betray mistakes: men and women differ, the world is not the camera's frame, rows of the
regressor do not sum to 1, poses are not symmetric. Written from the descriptions of the files, not from the readers.
"""

import argparse
import io
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from dpmesh.body.files import BodyArrays, free_body
from dpmesh.body.model import BodyModel
from dpmesh.render.overlay import Layer, draw_overlay, palette
from dpmesh.skeletons import COCO17, H36M17, JOINTS30, OPENPOSE18, Skeleton

WIDTH, HEIGHT, FOCAL = 320, 240, 290.0
K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
VERTICES = 6890
ROW_SUMS = np.linspace(0.9997, 1.00005, 17)
"""The real regressor's rows sum to 0.99963-1.00005."""

SPIN_ORDER = (
    "R_Ankle", "R_Knee", "R_Hip", "L_Hip", "L_Knee", "L_Ankle", "R_Wrist", "R_Elbow", "R_Shoulder", "L_Shoulder",
    "L_Elbow", "L_Wrist", "Neck", "-", "Pelvis", "-", "Torso", "Nose", "Head_top", "-", "-", "-", "-", "-",
)  # fmt: skip
"""Human3.6M's name of each of SPIN's 24 joints; "-" is one that this twin leaves unmeasured."""


def smpl_files(assets: Path) -> dict[str, dict[str, np.ndarray]]:
    """SMPL_MALE, _FEMALE, _NEUTRAL.npz and the regressor, where `dpmesh assets import` puts the real ones."""
    body, found = free_body(), {}
    keep = np.setdiff1d(
        np.arange(len(body.v_template)), np.linspace(40, 6800, len(body.v_template) - VERTICES, dtype=int)
    )
    new = np.full(len(body.v_template), -1)
    new[keep] = np.arange(VERTICES)
    faces = new[body.faces]
    faces = faces[(faces >= 0).all(1)].astype(np.uint32)
    rows = body.J_regressor[:, keep]
    common = {
        "posedirs": body.posedirs[keep].astype(np.float16),
        "J_regressor": (rows / rows.sum(1, keepdims=True)).astype(np.float64),
        "weights": body.weights[keep].astype(np.float64),
        "kintree_table": np.array([[2**32 - 1, *body.parents[1:]], range(24)], np.uint32),
        "f": faces,
    }
    (assets / "smpl").mkdir(parents=True)
    (assets / "regressors").mkdir()
    for name, taller, wider in (("NEUTRAL", 1.0, 1.0), ("MALE", 1.06, 1.1), ("FEMALE", 0.95, 0.9)):
        shape = np.array([wider, taller, wider])
        found[name.lower()] = common | {
            "v_template": body.v_template[keep].astype(np.float64) * shape,
            "shapedirs": body.shapedirs[keep].astype(np.float64)
            * shape[:, None]
            * (1.2 if name == "MALE" else 1),
        }
        np.savez(assets / "smpl" / f"SMPL_{name}.npz", **found[name.lower()])
    h36m = body.regressors["h36m17"][:, keep].astype(np.float64)
    h36m *= (ROW_SUMS / h36m.sum(1))[:, None]
    np.save(assets / "regressors" / "J_regressor_h36m_correct.npy", h36m)
    found["h36m"] = {"rows": h36m}
    return found


@dataclass
class Moment:
    """One person in one frame. Vertices and joints in the world, metres."""

    gender: str
    pose: np.ndarray  # 72, world frame
    betas: np.ndarray
    trans: np.ndarray
    vertices: np.ndarray
    joints30: np.ndarray
    joints24: np.ndarray


@dataclass
class Sequence:
    name: str
    split: str
    persons: list[list[Moment]]  # person, frame
    cam_poses: np.ndarray  # F 4 4
    valid: np.ndarray  # person, frame
    poses2d: np.ndarray  # person, F 3 18

    def vertices(self, person: int, frame: int) -> np.ndarray:
        """Camera frame."""
        R, t = self.cam_poses[frame, :3, :3], self.cam_poses[frame, :3, 3]
        return self.persons[person][frame].vertices @ R.T + t


class World:
    """Makes people. `bodies` are posed by the package's own layer; the frames are this file's business."""

    def __init__(self, files: dict[str, dict[str, np.ndarray]], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        own = free_body()
        keep = {name: files[name] for name in ("male", "female", "neutral")}
        self.bodies = {name: BodyModel(_arrays(raw, own)) for name, raw in keep.items()}
        self.h36m = files["h36m"]["rows"]

    def pose(
        self, gender: str, pose: np.ndarray, betas: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices, 30 joints and 24 joints of the rest frame."""
        rotations = torch.from_numpy(Rotation.from_rotvec(pose.reshape(24, 3)).as_matrix()).float()
        out = self.bodies[gender](torch.from_numpy(betas).float()[None], rotations[None])
        return tuple(part[0].double().numpy() for part in (out.vertices, out.joints30, out.joints))  # pyright: ignore[reportReturnType]

    def moment(
        self, gender: str, betas: np.ndarray, place: np.ndarray, R: np.ndarray, t: np.ndarray
    ) -> Moment:
        """Somebody upright before the camera whose pelvis is at `place` (camera frame)."""
        pose = self.rng.normal(0, 0.25, 72)
        facing = Rotation.from_euler(
            "yx", [np.pi + self.rng.uniform(-0.8, 0.8), np.pi]
        ) * Rotation.from_euler("y", np.pi)
        pose[:3] = (Rotation.from_matrix(R.T) * facing).as_rotvec()
        pelvis = self.pose(gender, np.zeros(72), betas)[2][0]
        trans = R.T @ (place - t) - pelvis
        vertices, joints30, joints24 = (part + trans for part in self.pose(gender, pose, betas))
        return Moment(gender, pose, betas, trans, vertices, joints30, joints24)

    def sequence(self, name: str, split: str, genders: str, frames: int, used: range) -> Sequence:
        """Frames outside `used` are not campose_valid and repeat the first used one."""
        rng = self.rng
        base = Rotation.from_euler("xyz", [2.9, 0.4, 0.2]).as_matrix()  # the world's y is up, about
        cameras = np.tile(np.eye(4), (frames, 1, 1))
        people: list[list[Moment]] = [[] for _ in genders]
        valid = np.zeros((len(genders), frames), int)
        for frame in range(frames):
            if frame not in used:
                continue
            R = Rotation.from_rotvec(rng.normal(0, 0.05, 3)).as_matrix() @ base
            cameras[frame, :3, :3], cameras[frame, :3, 3] = R, rng.normal(0, 0.5, 3)
        shapes = [rng.normal(0, 1, 10) for _ in genders]
        for person, letter in enumerate(genders):
            gender = {"m": "male", "f": "female"}[letter]
            for frame in range(frames):
                if frame in used:
                    R, t = cameras[frame, :3, :3], cameras[frame, :3, 3]
                    side = (person - (len(genders) - 1) / 2) * 1.1
                    place = np.array([side, 0.05, 3.6 + 0.6 * person + rng.uniform(-0.2, 0.2)])
                    people[person].append(self.moment(gender, shapes[person], place, R, t))
                    valid[person, frame] = 1
                else:
                    people[person].append(
                        people[person][-1]
                        if people[person]
                        else self.moment(
                            gender, shapes[person], np.array([0, 0, 4.0]), np.eye(3), np.zeros(3)
                        )
                    )
        told = np.stack([[_project18(m, cameras[f], rng) for f, m in enumerate(line)] for line in people])
        return Sequence(name, split, people, cameras, valid, told)


def _arrays(raw: dict[str, np.ndarray], own: BodyArrays) -> BodyArrays:
    joints30 = np.zeros((30, VERTICES), np.float32)
    joints30[:24] = raw["J_regressor"]
    joints30[np.arange(24, 30), [331, 2802, 6262, 3489, 3990, 411]] = 1  # as on SMPL
    return BodyArrays(
        v_template=raw["v_template"].astype(np.float32), shapedirs=raw["shapedirs"].astype(np.float32),
        posedirs=raw["posedirs"].astype(np.float32), J_regressor=raw["J_regressor"].astype(np.float32),
        weights=raw["weights"].astype(np.float32), parents=own.parents, faces=raw["f"].astype(np.int64),
        regressors={"joints30": joints30},
    )  # fmt: skip


def project(points: np.ndarray) -> np.ndarray:
    flat = points @ K.T
    return flat[:, :2] / flat[:, 2:]


def keypoints(joints30: np.ndarray, skeleton: Skeleton, rng: np.random.Generator) -> np.ndarray:
    """Projected joints (camera frame) with a pixel of noise; some unsure, none where the set has no such joint."""
    out = np.zeros((len(skeleton), 3))
    for i, at in enumerate(skeleton.indices_in(JOINTS30)):
        if at >= 0:
            out[i] = (
                *(project(joints30[at : at + 1])[0] + rng.normal(0, 1, 2)),
                rng.choice([0.9, 0.6, 0.03], p=[0.6, 0.3, 0.1]),
            )
    return out


def _project18(moment: Moment, camera: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return keypoints(moment.joints30 @ camera[:3, :3].T + camera[:3, 3], OPENPOSE18, rng).T


def make_sequences(world: World) -> list[Sequence]:
    """Two of test, one of train, one of validation; what the protocols choose of them is the tests' affair."""
    cafe = world.sequence("downtown_cafe_00", "test", "fm", 5, range(5))
    cafe.valid[0, 1] = 0  # no camera for one person-frame
    cafe.poses2d[1, 2] = 0  # a person without keypoints
    away = cafe.persons[1][3]  # a person behind the camera
    behind = cafe.cam_poses[3, :3, :3].T @ np.array([0, 0, -9.0])
    for name in ("trans", "vertices", "joints30", "joints24"):
        setattr(away, name, getattr(away, name) + behind)
    return [
        cafe,
        world.sequence("outdoors_fencing_01", "test", "m", 3, range(3)),
        world.sequence("courtyard_backpack_00", "train", "f", 2, range(2)),
        world.sequence("courtyard_hug_00", "validation", "mf", 104, range(98, 104)),
    ]


def picture(path: Path, meshes: list[np.ndarray], faces: np.ndarray, rng: np.random.Generator) -> None:
    noise = rng.integers(60, 200, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    layers = [Layer(m.astype(np.float32), c) for m, c in zip(meshes, palette(len(meshes)), strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_overlay(image, layers, faces, K)).save(path, quality=92)


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


def write_3doh(root: Path, world: World, count: int = 3) -> dict[str, np.ndarray]:
    """Both layouts of the same people, neutral. The official one stores the world's root and misleading trans, scale.
    Returns name -> vertices, camera frame."""
    rng, jotr, official, truths = world.rng, {}, {}, {}
    faces = world.bodies["neutral"].faces.numpy()
    for i in range(count):
        R, t = Rotation.from_euler("xyz", rng.normal(0, 0.7, 3)).as_matrix(), rng.normal(0, 1, 3)
        m = world.moment("neutral", rng.normal(0, 1, 10), np.array([0.1 * i, 0, 3.5]), R, t)
        vertices, joints30 = m.vertices @ R.T + t, m.joints30 @ R.T + t
        pixels = project(vertices)
        box = np.stack([pixels.min(0), pixels.max(0)])
        pose = m.pose.copy()
        pose[:3] = (Rotation.from_matrix(R) * Rotation.from_rotvec(pose[:3])).as_rotvec()
        rest = world.pose("neutral", pose, m.betas)[0]
        coco = keypoints(joints30, COCO17, rng)
        if i == 1:
            coco[:] = 0  # a detector that saw nothing
        name = f"{i:05d}"
        truths[name] = vertices
        jotr[f"{name}.jpg"] = {
            "pose": pose.tolist(), "shape": m.betas.tolist(), "trans": (vertices - rest).mean(0).tolist(),
            "scale": [1.0], "bbox": box.reshape(-1).tolist(), "hrnet_results": coco.tolist(),
        }  # fmt: skip
        official[name] = {
            "img_path": f"/images/{name}.jpg", "intri": K.tolist(),
            "extri": np.block([[R, t[:, None]], [0, 0, 0, 1]]).tolist(), "bbox": box.tolist(),
            "betas": [m.betas.tolist()], "pose": [m.pose.tolist()], "trans": [(7 * m.trans).tolist()],
            "scale": [7.0], "smpl_joints_2d": np.zeros((24, 2)).tolist(), "smpl_joints_3d": (7 * m.joints24).tolist(),
            "lsp_joints_2d": np.zeros((14, 2)).tolist(), "lsp_joints_3d": np.zeros((14, 3)).tolist(),
        }  # fmt: skip
        for folder in ("OH3D/images", "3DOH50K/testset/images"):
            picture(root / folder / f"{name}.jpg", [vertices], faces, np.random.default_rng(i))
    (root / "OH3D" / "3doh_test_annots_scale_1.json").write_text(json.dumps(jotr))
    (root / "3DOH50K" / "testset" / "annots.json").write_text(json.dumps(official))
    return truths


def write_panoptic(
    root: Path, world: World, scene: str = "160422_haggling1", frames: int = 2
) -> dict[str, np.ndarray]:
    """Pictures twice as large as annotated; wrists of the first person unmeasured. Returns id -> 17 joints, metres."""
    rng, content, truths = world.rng, [], {}
    faces = world.bodies["neutral"].faces.numpy()
    for frame in range(frames):
        people = [
            world.moment(g, rng.normal(0, 1, 10), np.array([x, 0, 3.6]), np.eye(3), np.zeros(3))
            for g, x in (("male", -0.6), ("female", 0.6))
        ]
        flat, solid, boxes = [], [], []
        name = f"{scene}/hdImgs/00_16/00_16_{frame:08d}.jpg"
        for p, m in enumerate(people):
            joints = world.h36m / world.h36m.sum(1, keepdims=True) @ m.vertices
            truths[f"{scene}/{scene}/hdImgs/00_16/00_16_{frame:08d}/{p}"] = joints
            three, two = np.zeros((24, 4)), np.zeros((24, 3))
            for i, joint in enumerate(SPIN_ORDER):
                if joint != "-" and not (p == 0 and joint.endswith("Wrist")):
                    at = joints[H36M17.index(joint)]
                    three[i] = *at, 1
                    two[i] = *(project(at[None])[0] / 2), 1
            pixels = project(m.vertices) / 2
            flat, solid, boxes = [*flat, two], [*solid, three], [*boxes, [*pixels.min(0), *pixels.max(0)]]
        content.append({
            "filename": name, "width": WIDTH // 2, "height": HEIGHT // 2, "bboxes": np.array(boxes),
            "kpts2d": np.array(flat), "kpts3d": np.array(solid),
        })  # fmt: skip
        picture(root / "Panoptic" / name, [m.vertices for m in people], faces, rng)
    path = root / "Panoptic" / "processed" / "annotations" / f"{scene}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))
    return truths


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    world = World(smpl_files(folder / "assets"))
    sequences, data = make_sequences(world), folder / "data"
    write_3dpw_official(data, sequences)
    write_3dpw_pictures(data, world, sequences)
    write_3dpw_json(data, world, sequences)
    write_3doh(data, world)
    write_panoptic(data, world)


if __name__ == "__main__":
    main()
