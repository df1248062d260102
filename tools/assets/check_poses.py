"""Shows a pose file: a sheet of bodies, and the difference to another retarget of the same clips.

python -m tools.assets.check_poses POSES.npz --sheet SHEET.png [--only deepmimic:] [--against OTHER.npz]
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.data.poses import PoseBank
from dpmesh.render.rasterizer import rasterize

TILE = 300


def draw(body: BodyModel, pose: np.ndarray, label: str) -> np.ndarray:
    """One body, upright as in the world, a little from its left front."""
    rotations = torch.from_numpy(Rotation.from_rotvec(pose).as_matrix().astype(np.float32))[None]
    out = body(torch.zeros(1, 10), rotations, None)
    turn = (
        Rotation.from_euler("x", 180, degrees=True).as_matrix()
        @ Rotation.from_euler("y", 20, degrees=True).as_matrix()
    )
    points = (out.vertices[0] - out.joints[0, 0]).detach().numpy() @ turn.T + (0, 0, 3.2)
    points, faces = points.astype(np.float32), body.faces.numpy().astype(np.int32)
    k = np.array([[TILE * 1.45, 0, TILE / 2], [0, TILE * 1.45, TILE / 2], [0, 0, 1]])
    raster = rasterize(points, faces, k, (TILE, TILE))
    corners = points[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    light = 60 + 180 * np.abs(normals @ np.array([0.35, 0.45, 0.82]))
    tile = np.full((TILE, TILE), 255, np.uint8)
    tile[raster.face >= 0] = light[raster.face[raster.face >= 0]].clip(0, 255).astype(np.uint8)
    return cv2.putText(tile, label, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 0, 1, cv2.LINE_AA)


def sheet(bank: PoseBank, out: Path, sample: bool) -> None:
    """24 poses, evenly spread over the bank (or drawn with the augmentation), facing the camera."""
    body = BodyModel(free_body())
    names = np.repeat(np.array(bank.names), bank.lens)
    if sample:
        poses, labels = bank.sample(np.random.default_rng(0), 24), ["sampled"] * 24
    else:
        chosen = np.linspace(0, len(bank) - 1, 26).astype(int)[1:-1]
        poses, labels = bank.poses[chosen].copy(), [str(n) for n in names[chosen]]
    for pose in poses:  # take the heading out, keep the lean
        root = Rotation.from_rotvec(pose[0])
        front = root.apply((0, 0, 1))
        pose[0] = (Rotation.from_euler("y", -np.arctan2(front[0], front[2])) * root).as_rotvec()
    tiles = [draw(body, p, n) for p, n in zip(poses, labels, strict=True)]
    rows = [np.concatenate(tiles[i : i + 8], 1) for i in range(0, 24, 8)]
    cv2.imwrite(str(out), np.concatenate(rows))


def compare(bank: PoseBank, other: PoseBank) -> None:
    """Mean angle between the two banks' joint rotations, degrees, for each set of clips."""
    ours, theirs = (
        {n: b.poses[e - k : e] for n, k, e in zip(b.names, b.lens, np.cumsum(b.lens), strict=True)}
        for b in (bank, other)
    )
    for kind in sorted({n.split(":")[0] for n in ours}):
        same = [n for n in ours if n.startswith(kind) and n in theirs and len(ours[n]) == len(theirs[n])]
        if not same:
            continue
        a, b = (
            Rotation.from_rotvec(np.concatenate([c[n] for n in same]).reshape(-1, 3)) for c in (ours, theirs)
        )
        angles = np.degrees((a.inv() * b).magnitude()).reshape(-1, 24).mean(0)
        print(
            f"{kind:10s} {len(same):3d} clips  mean {angles[:22].mean():5.1f} deg  joints",
            angles[:22].round().astype(int),
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("poses", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--only", default="", help="beginning of the clips' names")
    parser.add_argument("--sample", action="store_true", help="draw augmented poses instead of recorded ones")
    parser.add_argument("--against", type=Path)
    arguments = parser.parse_args()
    bank = PoseBank.read(arguments.poses)
    bank = bank.select(tuple(n.startswith(arguments.only) for n in bank.names))
    if arguments.sheet:
        sheet(bank, arguments.sheet, arguments.sample)
    if arguments.against:
        compare(bank, PoseBank.read(arguments.against))


if __name__ == "__main__":
    main()
