"""Tracks as the files of other programs: animated GLB, BVH, TRC, AMASS, CSV. Written row by row: no file's text is in
memory as a whole."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dpmesh.animation.amass import amass_fields
from dpmesh.animation.bvh import TO_YUP, bvh_lines
from dpmesh.animation.trc import trc_lines
from dpmesh.body.layer import BodyModel
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.inference.glb import Camera, Motion, Skeleton, SkinnedBody, glb_parts
from dpmesh.io import atomic_path
from dpmesh.render.overlay import palette
from dpmesh.render.shading import vertex_normals
from dpmesh.skeletons import JOINTS30, SMPL24
from dpmesh.video.tracks import Tracks


def animated_glb(tracks: Tracks, body: BodyModel, faces: NDArray[np.int32]) -> list[bytes | bytearray]:
    """All people as skinned, animated meshes, and the camera: the file, in a few pieces."""
    weights = body.skinning_weights.cpu().numpy()
    skeleton = Skeleton(SMPL24.joints, body.parents, weights, faces)
    bodies = [
        _animated(tracks, int(number), body, faces, colour)
        for number, colour in zip(tracks.numbers, palette(len(tracks)), strict=True)
    ]
    ground = tracks.ground
    world = None if ground is None else np.column_stack([ground.rotation, ground.translation])
    return glb_parts(skeleton, bodies, Camera(tracks.K, tracks.image_size), world=world)


def _animated(
    tracks: Tracks, number: int, body: BodyModel, faces: NDArray[np.int32], colour: tuple[float, float, float]
) -> SkinnedBody:
    own = tracks.of(number)
    vertices, joints = rest_pose(body, tracks.betas_of(own[:1])[0])
    vectors = np.concatenate([tracks.global_orient[own], tracks.body_pose[own]], 1).reshape(-1, 24, 3)
    return SkinnedBody(
        name=f"person_{number:02d}",
        colour=colour,
        vertices=vertices,
        normals=vertex_normals(vertices, faces),
        joints=joints,
        rotations=rotation_matrix(torch.from_numpy(vectors[0].astype(np.float64))).numpy(),
        transl=tracks.transl[own[0]].astype(np.float64),
        motion=Motion(tracks.time[own], vectors, tracks.transl[own], absences(tracks, own)),
    )


def absences(tracks: Tracks, own: NDArray[np.int64]) -> list[tuple[float, float]]:
    """Spans of time without the person of these rows, seconds: before, between and after them. Frames that were not
    read are none."""
    frames, times = tracks.frame[own], tracks.time[own]
    step = _step(frames)
    wide = np.flatnonzero(np.diff(frames) > 1.5 * step)
    shown = step / tracks.fps  # of each frame
    spans = [(float(min(times[i] + shown, times[i + 1])), float(times[i + 1])) for i in wide]
    if times[0] > 0:
        spans.insert(0, (0.0, float(times[0])))
    if frames[-1] < tracks.frame[-1]:
        spans.append((float(times[-1] + shown), float(tracks.time[-1] + 2 * shown)))
    return [(a, b) for a, b in spans if a < b]


@torch.no_grad()
def rest_pose(
    body: BodyModel, betas: Float[np.ndarray, "10"]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Vertices and joints of the T-pose with this shape, metres."""
    device = body.faces.device
    shape = torch.from_numpy(betas[None]).to(device, torch.float32)
    vertices, joints = body.bind_pose(shape, torch.eye(3, device=device).expand(1, 24, 3, 3))
    return vertices[0].cpu().numpy(), joints[0].cpu().numpy().astype(np.float64)


def write_motions(
    tracks: Tracks, body: BodyModel, folder: Path, formats: Sequence[str], unit: str = "cm"
) -> None:
    """For each track `person_NN.bvh`, `person_NN.trc` and `person_NN_amass.npz`, as far as `formats` has them.

    In the world frame where the floor is known. A gap without the person stands still. unit: of the BVH. Raises
    OutputError.
    """
    for number in tracks.numbers:
        own = tracks.of(int(number))
        name, betas = f"person_{number:02d}", tracks.betas_of(own[:1])[0]
        rest = rest_pose(body, betas)[1]
        step = _step(tracks.frame[own])
        held, rate = own[_held(tracks.frame[own], step)], tracks.fps / step
        orient, transl = placed(tracks, held, rest[0])
        vectors = np.concatenate([orient, tracks.body_pose[held]], 1).reshape(-1, 24, 3)
        if "bvh" in formats:
            write_lines(folder / f"{name}.bvh", bvh_lines(rest, vectors, transl, rate, unit))
        if "trc" in formats:
            points = tracks.joints3d[held] * TO_YUP.astype(np.float32)
            if tracks.ground is not None:
                points = tracks.ground.to_world(tracks.joints3d[held])
            file, start = f"{name}.trc", float(tracks.time[own[0]])
            write_lines(folder / file, trc_lines(points, JOINTS30.joints, rate, file, start))
        if "amass" in formats:
            fields = amass_fields(orient, tracks.body_pose[held], betas, transl, rest[0], rate)
            with atomic_path(folder / f"{name}_amass.npz") as part, part.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **fields)


def placed(
    tracks: Tracks, rows: NDArray[np.int64], pelvis: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "t 3"], Float[np.ndarray, "t 3"]]:
    """global_orient and transl of rows; where the floor is known, in the world with y turned down, as the camera's is.

    pelvis: of the rest pose, metres.
    """
    orient, transl = tracks.global_orient[rows], tracks.transl[rows].astype(np.float64)
    if tracks.ground is None:
        return orient, transl
    turn = TO_YUP[:, None] * tracks.ground.rotation
    turned = Rotation.from_matrix(turn) * Rotation.from_rotvec(orient)
    moved = (pelvis + transl) @ turn.T + TO_YUP * tracks.ground.translation - pelvis
    return turned.as_rotvec(), moved


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Whole or not at all. Raises OutputError."""
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


def _step(frames: NDArray[np.int64]) -> int:
    """Frames between two rows."""
    return max(1, int(np.median(np.diff(frames)))) if len(frames) > 1 else 1


def _held(frames: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """For each step from the first frame to the last, the newest row up to it."""
    every = np.arange(frames[0], frames[-1] + 1, step)
    return np.searchsorted(frames, every, side="right") - 1


def csv_lines(tracks: Tracks, names: Sequence[str] = JOINTS30.joints) -> Iterator[str]:
    """One line for each person and frame: joints3d in metres, camera frame."""
    head = ["frame", "time", "track", "interpolated"] + [f"{name}_{axis}" for name in names for axis in "xyz"]
    yield ",".join(head)
    for row in range(len(tracks.frame)):
        values = ",".join(f"{v:.5f}" for v in tracks.joints3d[row].ravel())
        yield (
            f"{tracks.frame[row]},{tracks.time[row]:.6f},{tracks.track[row]},{int(tracks.interpolated[row])},{values}"
        )
