"""Made-up people as records of `dpmesh data pack`, and predictions of their true bodies."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.data.annotation import Annotation
from dpmesh.data.pack import PackConfig
from dpmesh.evaluate.packed import PackedSource
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.skeletons import H36M17, JOINTS30
from dpmesh.types import Inputs, Prediction

AT = list(H36M17.indices_in(JOINTS30))
SIZE, FOCAL, COUNT = (300, 240), 310.0, 5
K = np.array([[FOCAL, 0, 150], [0, FOCAL, 120], [0, 0, 1.0]])
SMALL = PackConfig(side=300, per_shard=2, quality=95)


class Crowd:
    """Made-up people off the image centre; joints of the free body by the Human3.6M regressor, camera frame."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.body = BodyModel(free_body())
        pose = torch.from_numpy(rng.normal(0, 0.2, (COUNT, 24, 3))).float()
        pose[:, 0] = torch.tensor([np.pi, 0.0, 0.0])
        posed = self.body(torch.zeros(COUNT, 10), rotation_matrix(pose))
        places = np.stack([[x, 0.1, 4.0] for x in (-1.2, -0.6, 0.0, 0.6, 1.2)]).astype(np.float32)
        self.vertices = posed.vertices.numpy() + places[:, None]
        own = posed.joints30.numpy() + places[:, None]
        self.joints = own.copy()  # joints of Human3.6M's regressor where it has them
        self.joints[:, AT] = self.body.regress(posed.vertices, "h36m17").numpy() + places[:, None]
        self.own = own

    def person(self, i: int, folder: Path, **changed: object) -> Annotation:
        joints = self.joints[i]
        pixels = (joints @ K.T)[:, :2] / joints[:, 2:]
        low, high = np.maximum(pixels.min(0), 0), np.minimum(pixels.max(0), np.array(SIZE) - 1)
        valid = np.zeros(30, np.float32)
        valid[AT] = 1
        path = folder / f"{i}.jpg"
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (*SIZE[::-1], 3), np.uint8)).save(path)
        made = Annotation(
            record_id=f"mine/walk{i % 2}/{i}", image=path, size=SIZE, box=np.concatenate([low, high]), K=K,
            joints2d=(pixels * valid[:, None]).astype(np.float32), joints2d_valid=valid,
            joints3d=(joints * valid[:, None]).astype(np.float32), joints3d_valid=valid,
        )  # fmt: skip
        return replace(made, **changed)


def people(crowd: Crowd, folder: Path) -> list[Annotation]:
    """The second lacks a knee in 3D, the fourth everything."""
    persons = [crowd.person(i, folder) for i in range(COUNT)]
    some = persons[1].joints3d_valid.copy()
    some[JOINTS30.index("L_Knee")] = 0
    persons[1] = replace(persons[1], joints3d_valid=some)
    persons[3] = replace(persons[3], joints3d_valid=np.zeros(30, np.float32))
    return persons


def true_prediction(crowd: Crowd, source: PackedSource, indices: Sequence[int], camera: str) -> Prediction:
    """The truth, in the frame of a model of that camera."""
    persons = source.persons(indices)
    rows = [int(name.rpartition("/")[2]) for name in persons.ids]
    mesh = crowd.vertices[rows]
    if camera == "crop":
        mesh = np.einsum("bji,bvj->bvi", persons.turn, mesh)
    vertices, n = torch.from_numpy(mesh).float(), len(rows)
    joints, zeros = crowd.body.regress(vertices, "joints30"), torch.zeros
    return Prediction(
        root_6d=zeros(n, 6), pose_latent=zeros(n, 1), body_rotations=torch.eye(3).expand(n, 23, 3, 3),
        betas=zeros(n, 10), camera=zeros(n, 3), joints_img=zeros(n, 15, 3),
        global_orient=torch.eye(3).expand(n, 3, 3), transl=zeros(n, 3), vertices=vertices, joints3d=joints,
        joints2d=joints[..., :2], focal=torch.ones(n),
    )  # fmt: skip


class Body:
    """The attributes of a model that `predicted` uses."""

    def __init__(self, crowd: Crowd, camera: str) -> None:
        self.body, self.camera, self.provenance = crowd.body, camera, {}

    def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        raise AssertionError("the test passes the prediction itself")
