"""The made-up people of tools/evaluation_twin.py, the bodies that they are posed with, and their pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from dpmesh.body.files import BodyArrays, free_body
from dpmesh.body.layer import BodyModel
from dpmesh.render.overlay import Layer, draw_overlay, palette
from dpmesh.skeletons import JOINTS30, OPENPOSE18, Skeleton

WIDTH, HEIGHT, FOCAL = 320, 240, 290.0
K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
VERTICES = 6890
ROW_SUMS = np.linspace(0.9997, 1.00005, 17)
"""The real regressor's rows sum to 0.99963-1.00005."""


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
