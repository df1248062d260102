"""Draws the sheets of docs/images/body.

    python -m tools.figures.draw_body OUT_DIR [BODY].

Orthographic, painter's algorithm: slow, simple, and independent of the renderer it helps to check.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.spatial.transform import Rotation

from dpmesh.body.files import free_body, load_body
from dpmesh.body.layer import BodyModel
from dpmesh.skeletons import SMPL24

SIZE, SCALE = 380, 2  # drawn twice as large, then halved

POSES: dict[str, dict[str, tuple[float, float, float]]] = {  # degrees about body x (left), y (up), z (front)
    "sitting": {
        "L_Hip": (-85, 0, 8), "R_Hip": (-85, 0, -8), "L_Knee": (85, 0, 0), "R_Knee": (85, 0, 0),
        "L_Shoulder": (0, -10, -70), "R_Shoulder": (0, 10, 70), "L_Elbow": (0, -45, 0), "R_Elbow": (0, 45, 0),
    },
    "kneeling": {
        "L_Hip": (-80, 0, 0), "L_Knee": (90, 0, 0), "R_Knee": (100, 0, 0), "R_Ankle": (45, 0, 0),
        "L_Shoulder": (0, 0, -65), "R_Shoulder": (0, 0, 65),
    },
    "arms crossed": {
        "L_Thorax": (0, -12, -8), "R_Thorax": (0, 8, 8), "L_Shoulder": (35, -50, -55),
        "R_Shoulder": (35, 35, 60), "L_Elbow": (0, -120, 0), "R_Elbow": (0, 110, 0),
    },
    "arms up, twist": {
        "L_Shoulder": (0, 0, 70), "R_Shoulder": (0, 0, -70), "L_Wrist": (90, 0, 0), "L_Elbow": (60, 0, 0),
        "Torso": (0, 20, 0), "Spine": (0, 20, 0), "Chest": (0, 15, 0), "Head": (0, 30, 0),
    },
    "squat": {
        "Pelvis": (25, 0, 0), "L_Hip": (-115, 20, 15), "R_Hip": (-115, -20, -15), "L_Knee": (120, 0, 0),
        "R_Knee": (120, 0, 0), "L_Ankle": (-25, 0, 0), "R_Ankle": (-25, 0, 0), "L_Shoulder": (0, -75, -10),
        "R_Shoulder": (0, 75, 10),
    },
}  # fmt: skip
VIEWS = {"front": (0, 0, 0), "side": (0, -90, 0), "back": (0, 180, 0), "three-quarter": (0, -40, 0)}


def draw(vertices: np.ndarray, faces: np.ndarray, view: str, label: str, points: np.ndarray | None = None,
         centre: tuple[float, float] | None = None, height: float = 2.05) -> Image.Image:  # fmt: skip
    """One image; `points` are drawn as red dots on top of a pale body."""
    turn = Rotation.from_euler("xyz", VIEWS[view], degrees=True).as_matrix()
    turned = vertices @ turn.T
    middle = np.array(centre) if centre else (turned[:, :2].max(0) + turned[:, :2].min(0)) / 2
    pixels = SIZE * SCALE

    def place(p: np.ndarray) -> np.ndarray:
        return ((p[:, :2] - middle) * [1, -1] / height + 0.5) * pixels

    corners = turned[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    light = np.clip(normal @ [0.35, 0.5, 0.79], 0, 1) * 0.75 + 0.25
    base = np.array([225, 190, 165]) if points is None else np.array([225, 220, 215])
    image = Image.new("RGB", (pixels, pixels), "white")
    canvas, flat = ImageDraw.Draw(image), place(turned)
    for face in np.argsort(corners[:, :, 2].mean(1), kind="stable"):
        inside = normal[face, 2] < 0  # a back face that stays visible is a hole: blue shows it
        colour = (60, 60, 255) if inside else tuple(int(c) for c in base * light[face])
        canvas.polygon([tuple(p) for p in flat[faces[face]]], fill=colour, outline=colour)
    if points is not None:
        for x, y in place(points @ turn.T):
            canvas.ellipse([x - 7, y - 7, x + 7, y + 7], fill="red")
    image = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    ImageDraw.Draw(image).text((6, 4), label, fill="black")
    return image


def sheet(tiles: list[Image.Image], columns: int, path: Path) -> None:
    rows = -(-len(tiles) // columns)
    width, height = tiles[0].size
    page = Image.new("RGB", (width * columns, height * rows), "white")
    for i, tile in enumerate(tiles):
        page.paste(tile, (i % columns * width, i // columns * height))
    quality = 85
    page.save(path, quality=quality, optimize=True)
    while path.stat().st_size > 150_000 and quality > 40:
        quality -= 10
        page.save(path, quality=quality, optimize=True)


def rotations(pose: dict[str, tuple[float, float, float]]) -> torch.Tensor:
    turns = np.tile(np.eye(3), (24, 1, 1))
    for name, degrees in pose.items():
        turns[SMPL24.index(name)] = Rotation.from_rotvec(np.deg2rad(degrees)).as_matrix()
    return torch.from_numpy(turns[None]).float()


def main(folder: Path, body: str | None) -> None:
    model = BodyModel(load_body(body) if body else free_body())
    faces = model.faces.numpy()
    rest, zero = rotations({}), torch.zeros(1, 10)
    out = model(zero, rest)
    vertices = out.vertices[0].numpy()
    tiles = [draw(vertices, faces, view, f"T-pose, {view}") for view in ("front", "side", "back")]
    for view in ("front", "side"):
        tiles.append(draw(vertices, faces, view, f"24 joints of the chain, {view}", out.joints[0].numpy()))
    for name in model.regressor_names:
        tiles.append(draw(vertices, faces, "front", name, model.regress(out.vertices, name)[0].numpy()))
        tiles.append(draw(vertices, faces, "side", name, model.regress(out.vertices, name)[0].numpy()))
    head = out.joints30[0, 24].numpy()
    tiles.append(draw(vertices, faces, "front", "face", centre=(0, float(head[1])), height=0.4))
    sheet(tiles, 4, folder / "t_pose.jpg")
    tiles = []
    for component in range(10):
        for sigma in (-2, 2):
            betas = zero.clone()
            betas[0, component] = sigma
            tiles.append(
                draw(
                    model(betas, rest).vertices[0].numpy(),
                    faces,
                    "front",
                    f"shape {component}: {sigma:+d} s.d.",
                    height=2.15,
                )
            )
    sheet(tiles, 4, folder / "shapes.jpg")
    tiles = []
    for name, pose in POSES.items():
        posed = model(zero, rotations(pose))
        tall = 2.3 if "up" in name else 1.8
        for view in ("front", "three-quarter", "side"):
            tiles.append(draw(posed.vertices[0].numpy(), faces, view, f"{name}, {view}", height=tall))
        tiles.append(
            draw(
                posed.vertices[0].numpy(),
                faces,
                "side",
                f"{name}, 30 joints",
                posed.joints30[0].numpy(),
                height=tall,
            )
        )
    sheet(tiles, 4, folder / "poses.jpg")
    generator = np.random.default_rng(3)
    betas = torch.from_numpy(generator.normal(0, 1, (8, 10))).float()
    lowered = rotations({"L_Shoulder": (0, 0, -65), "R_Shoulder": (0, 0, 65)})
    people = [model(beta[None], lowered).vertices[0].numpy() for beta in betas]
    tiles = [draw(person, faces, "three-quarter", "random shape") for person in people]
    sheet(tiles, 4, folder / "population.jpg")


if __name__ == "__main__":
    torch.set_num_threads(1)
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
