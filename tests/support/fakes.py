"""A body of octahedra and a model that needs no weights: what the pipeline does around them is under test."""

import numpy as np
import torch
from torch import Tensor, nn

from dpmesh.backbone.features import Features
from dpmesh.body.files import BodyArrays
from dpmesh.body.layer import BodyModel
from dpmesh.geometry.crop import Crop
from dpmesh.inference.detections import Detection, DetectionResult
from dpmesh.skeletons import SMPL24, SMPL_PARENTS
from dpmesh.types import Inputs, Prediction

_REST = {
    "Pelvis": (0, 0, 0), "Hip": (0.09, -0.08, 0), "Knee": (0.1, -0.47, 0), "Ankle": (0.1, -0.87, -0.02),
    "Toe": (0.11, -0.93, 0.11), "Torso": (0, 0.11, 0), "Spine": (0, 0.24, 0), "Chest": (0, 0.3, 0),
    "Neck": (0, 0.5, -0.01), "Thorax": (0.08, 0.42, 0), "Head": (0, 0.58, 0.03), "Shoulder": (0.18, 0.44, 0),
    "Elbow": (0.44, 0.44, 0), "Wrist": (0.69, 0.44, 0), "Hand": (0.77, 0.44, 0),
}  # fmt: skip


def stick_body() -> BodyArrays:
    """SMPL's tree with six vertices around each joint; metres, body frame."""
    rest = []
    for name in SMPL24.joints:
        side = {"L_": 1.0, "R_": -1.0}.get(name[:2], 1.0)
        x, y, z = _REST[name.split("_")[-1]]
        rest.append((side * x, y + 0.2, z))
    corners = np.vstack([np.eye(3), -np.eye(3)]) * 0.06
    vertices = (np.array(rest)[:, None] + corners).reshape(-1, 3).astype(np.float32)
    octants = [(0, 1, 2), (1, 3, 2), (3, 4, 2), (4, 0, 2), (1, 0, 5), (3, 1, 5), (4, 3, 5), (0, 4, 5)]
    faces = (np.array(octants) + 6 * np.arange(24)[:, None, None]).reshape(-1, 3)
    own = np.kron(np.eye(24), np.full((1, 6), 1 / 6)).astype(np.float32)  # (24, 144): the mean of its six
    shapes = np.random.default_rng(0).normal(0, 0.005, (144, 3, 10)).astype(np.float32)
    head = own[[SMPL24.index("Head")] * 6]
    return BodyArrays(
        v_template=vertices, shapedirs=shapes, posedirs=np.zeros((144, 3, 207), np.float32), J_regressor=own,
        weights=np.kron(np.eye(24), np.ones((6, 1))).astype(np.float32), parents=SMPL_PARENTS,
        faces=faces.astype(np.int64), regressors={"joints30": np.concatenate([own, head])},
    )  # fmt: skip


def turns(*shape: int, seed: int, size: float) -> Tensor:
    """Random rotation matrices (*shape, 3, 3) of about `size` radians."""
    vectors = torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed)) * size
    skew = torch.zeros(*shape, 3, 3)
    skew[..., 0, 1], skew[..., 0, 2], skew[..., 1, 2] = -vectors[..., 2], vectors[..., 1], -vectors[..., 0]
    return torch.matrix_exp(skew - skew.transpose(-1, -2))


def looks_at(joints: Tensor) -> Features:
    """Maps of 8 and 16 cells, brightest where each joint lies (crop pixels)."""
    maps: dict[int, Tensor] = {}
    for size in (8, 16):
        centres = (torch.arange(size) + 0.5) * Crop.SIZE / size - 0.5
        x, y = (-(((centres - joints[..., i, None]) / 40) ** 2) for i in (0, 1))  # (b, 30, size)
        maps[size] = torch.exp(y[..., :, None] + x[..., None, :])
    return Features(torch.zeros(len(joints), 1, 8, 8), maps)


class FakeModel(nn.Module):
    """Keeps the contract of `DPMesh` exactly: the body of one fixed pose, upright, 1.9 m across the crop."""

    def __init__(self, camera: str = "crop") -> None:
        super().__init__()
        self.camera = camera
        self.body = BodyModel(stick_body())
        self.anchor = nn.Parameter(torch.zeros(1))
        self.provenance = {"data": "none"}
        self.calls: list[int] = []

    def forward(self, inputs: Inputs, *, features: bool = False) -> Prediction:
        n = len(inputs.crop)
        self.calls.append(n)
        upright = torch.tensor([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
        root = (upright @ turns(1, seed=3, size=0.3)).expand(n, 3, 3)
        rotations = turns(1, 23, seed=4, size=0.2).expand(n, 23, 3, 3)
        betas = torch.linspace(-1, 1, 10).expand(n, 10)
        depth = 1.9 * inputs.focal / Crop.SIZE
        transl = torch.stack([torch.zeros(n), torch.full((n,), 0.3), depth], dim=1)
        posed = self.body(betas, torch.cat([root[:, None], rotations], 1), transl)
        pixels = posed.joints30[..., :2] / posed.joints30[..., 2:] * inputs.focal[:, None, None] + 128
        return Prediction(
            root_6d=torch.zeros(n, 6), pose_latent=torch.zeros(n, 1, 1), betas=betas,
            body_rotations=rotations, camera=torch.zeros(n, 3), joints_img=torch.zeros(n, 15, 3),
            global_orient=root, transl=transl, vertices=posed.vertices, joints3d=posed.joints30,
            joints2d=pixels, focal=inputs.focal, features=looks_at(inputs.joints) if features else None,
        )  # fmt: skip


class FakeDetector:
    """Finds `boxes` (xyxy, fractions of the image) everywhere; no person in images below 8 px."""

    def __init__(self, boxes: list[tuple[float, float, float, float]]) -> None:
        self.fractions = boxes

    def __call__(self, image: np.ndarray, max_people: int = 20) -> DetectionResult:
        height, width = image.shape[:2]
        scale = np.array([width, height, width, height], np.float32)
        boxes = np.array(self.fractions if min(height, width) > 8 else [], np.float32).reshape(-1, 4) * scale
        people = self.keypoints_in_boxes(image, boxes)
        return DetectionResult(people[:max_people], dropped=max(0, len(people) - max_people))

    def keypoints_in_boxes(
        self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray | None = None
    ) -> tuple[Detection, ...]:
        rng = np.random.default_rng(5)
        people = []
        for box in boxes.astype(np.float32):
            xy = box[:2] + rng.uniform(0.1, 0.9, (17, 2)) * (box[2:] - box[:2])
            points = np.concatenate([xy, np.full((17, 1), 0.9)], 1).astype(np.float32)
            people.append(Detection(box, points, 0.9))
        return tuple(people)
