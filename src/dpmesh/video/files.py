"""Tracks as files: tracks.npz and tracks.json, and as the animations of other programs."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from dpmesh.animation.amass import amass_fields
from dpmesh.animation.bvh import bvh_text
from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.inference.corrections import corrections_of
from dpmesh.inference.glb import Camera, Motion, Skeleton, SkinnedBody, write_glb
from dpmesh.io import atomic_path, atomic_write, read_json
from dpmesh.render.overlay import palette
from dpmesh.render.shading import vertex_normals
from dpmesh.skeletons import JOINTS30, SMPL24
from dpmesh.video.overlay import write_overlay
from dpmesh.video.tracks import ARRAYS, Ground, Tracks
from dpmesh.video.video import Video

SCHEMA = "dpmesh.tracks/1"
TABLE, TEXT = "tracks.npz", "tracks.json"
LARGEST_TABLE = 2**32
_FIXED = {TABLE, "overlay.mp4", "scene.glb", "joints.csv"}
"""Files of a result besides tracks.json and those of each person."""
_PERSON = re.compile(r"person_\d+(\.bvh|_amass\.npz)")


def save_tables(tracks: Tracks, folder: Path, provenance: Mapping[str, Any]) -> None:
    """tracks.npz (arrays) and tracks.json (the rest). Each is written whole or not at all. Raises OutputError."""
    with atomic_path(folder / TABLE) as part, part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{name: getattr(tracks, name) for name in ARRAYS})
    people = []
    for number in tracks.numbers:
        own = tracks.of(int(number))
        filled = int(tracks.interpolated[own].sum())
        people.append(
            {
                "track": int(number),
                "rows": len(own),
                "interpolated": filled,
                "first_frame": int(tracks.frame[own[0]]),
                "last_frame": int(tracks.frame[own[-1]]),
            }
        )
    content = {
        "schema": SCHEMA,
        "fps": tracks.fps,
        "image_size": list(tracks.image_size),
        "frames": tracks.frames,
        "joint_names": list(JOINTS30.joints),
        "units": "metres, camera frame: x right, y down, z forward; axis-angle; pixels",
        "people": people,
        "world": None
        if tracks.ground is None
        else {"rotation": tracks.ground.rotation.tolist(), "translation": tracks.ground.translation.tolist()},
        "fallbacks": dict(tracks.fallbacks),
        "notes": list(tracks.notes),
        **({"corrections": [dict(step) for step in tracks.corrections]} if tracks.corrections else {}),
        **provenance,
    }
    atomic_write(folder / TEXT, json.dumps(content, indent=1, allow_nan=False) + "\n")


def load_tables(folder: Path) -> Tracks:
    """The tracks that save_tables wrote. Raises InputError."""
    content = read_json(folder / TEXT)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(f"not a {SCHEMA} file", where=str(folder / TEXT))
    path = folder / TABLE
    if not path.is_file() or path.stat().st_size > LARGEST_TABLE:
        raise InputError("missing, or larger than any result", where=str(path))
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ARRAYS}
        return Tracks(
            **arrays,
            fps=float(content["fps"]),
            image_size=(int(content["image_size"][0]), int(content["image_size"][1])),
            frames=int(content["frames"]),
            notes=tuple(content["notes"]),
            fallbacks=content["fallbacks"],
            ground=_ground(content["world"]),
            corrections=tuple(
                step.as_json() for step in corrections_of(content.get("corrections", []), str(folder / TEXT))
            ),
        )
    except (KeyError, ValueError, TypeError, OSError, IndexError) as error:
        raise InputError(f"damaged ({type(error).__name__}: {error})", where=str(path)) from None


def is_result(folder: Path) -> bool:
    """Whether the folder holds a video's result, or what an interrupted write left of one, and nothing else."""
    names = [path.name for path in folder.iterdir()]
    return TEXT in names and all(name in {TEXT, *_FIXED} or _PERSON.fullmatch(name) for name in names)


def write_result(
    tracks: Tracks,
    folder: Path,
    video: Video,
    provenance: Mapping[str, Any],
    formats: Sequence[str],
    unit: str = "cm",
) -> None:
    """All files of a result; tracks.json, which makes the folder a result, comes first. Raises OutputError, InputError.

    formats: of "overlay", "glb", "bvh", "amass", "csv"; the tables are always written.
    """
    body = video.predictor.model.body
    faces = body.faces.cpu().numpy().astype(np.int32)
    if folder.exists():
        for path in folder.iterdir():
            if path.name in _FIXED or _PERSON.fullmatch(path.name):
                path.unlink()
    save_tables(tracks, folder, provenance)
    for name, content in motion_files(tracks, body, unit).items():
        if isinstance(content, bytes):
            if "bvh" in formats:
                atomic_write(folder / name, content)
        elif "amass" in formats:
            with atomic_path(folder / f"{name}.npz") as part, part.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **content)
    if "csv" in formats:
        atomic_write(folder / "joints.csv", joints_csv(tracks))
    if "glb" in formats and len(tracks):
        atomic_write(folder / "scene.glb", animated_glb(tracks, body, faces))
    if "overlay" in formats and not video.source.live:
        write_overlay(tracks, video.source, video.span, body, folder / "overlay.mp4")


def _ground(world: Any) -> Ground | None:
    if world is None:
        return None
    return Ground(
        np.array(world["rotation"], float).reshape(3, 3), np.array(world["translation"], float).reshape(3)
    )


def animated_glb(tracks: Tracks, body: BodyModel, faces: NDArray[np.int32]) -> bytes:
    """All people as skinned, animated meshes, and the camera."""
    weights = body.skinning_weights.cpu().numpy()
    skeleton = Skeleton(SMPL24.joints, body.parents, weights, faces)
    bodies = [
        _animated(tracks, int(number), body, faces, colour)
        for number, colour in zip(tracks.numbers, palette(len(tracks)), strict=True)
    ]
    return write_glb(skeleton, bodies, Camera(tracks.K, tracks.image_size))


def _animated(
    tracks: Tracks, number: int, body: BodyModel, faces: NDArray[np.int32], colour: tuple[float, float, float]
) -> SkinnedBody:
    own = tracks.of(number)
    vertices, joints = rest_pose(body, tracks.betas_of(own[:1])[0])
    matrices = pose_matrices(tracks, own)
    times = tracks.time[own]
    step = _step(tracks.frame[own]) / tracks.fps  # with --every, several frames
    spans = gaps(times, 1.5 * step)
    if times[0] > 0:
        spans.insert(0, (0.0, float(times[0])))
    last = float(times[-1] + step)
    if own[-1] != len(tracks.frame) - 1 and tracks.frame[own[-1]] < tracks.frame[-1]:
        spans.append((last, float(tracks.time[-1] + 2 / tracks.fps)))
    return SkinnedBody(
        name=f"person_{number:02d}",
        colour=colour,
        vertices=vertices,
        normals=vertex_normals(vertices, faces),
        joints=joints,
        rotations=matrices[0],
        transl=tracks.transl[own[0]].astype(np.float64),
        motion=Motion(times, matrices, tracks.transl[own].astype(np.float64), spans),
    )


def gaps(times: Float[np.ndarray, " t"], longest: float) -> list[tuple[float, float]]:
    """Spans between two times that are further apart than `longest`."""
    wide = np.flatnonzero(np.diff(times) > longest)
    return [(float(times[i]) + longest / 1.5, float(times[i + 1])) for i in wide]


@torch.no_grad()
def rest_pose(
    body: BodyModel, betas: Float[np.ndarray, "10"]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Vertices and joints of the T-pose with this shape, metres."""
    device = body.faces.device
    shape = torch.from_numpy(betas[None]).to(device, torch.float32)
    vertices, joints = body.bind_pose(shape, torch.eye(3, device=device).expand(1, 24, 3, 3))
    return vertices[0].cpu().numpy(), joints[0].cpu().numpy().astype(np.float64)


def pose_matrices(tracks: Tracks, rows: NDArray[np.int64]) -> Float[np.ndarray, "t 24 3 3"]:
    """Rotations of the rows' joints relative to their parents; the root's, body to camera frame."""
    vectors = np.concatenate([tracks.global_orient[rows], tracks.body_pose[rows]], 1).reshape(-1, 24, 3)
    return rotation_matrix(torch.from_numpy(vectors.astype(np.float64))).numpy()


def motion_files(tracks: Tracks, body: BodyModel, unit: str = "cm") -> dict[str, bytes | dict[str, Any]]:
    """`person_NN.bvh` and `person_NN_amass` for each track. A gap without the person stands still in both."""
    files: dict[str, bytes | dict[str, Any]] = {}
    for number in tracks.numbers:
        own = tracks.of(int(number))
        betas = tracks.betas_of(own[:1])[0]
        _, rest = rest_pose(body, betas)
        held = own[_held(tracks.frame[own])]
        vectors = np.concatenate([tracks.global_orient[held], tracks.body_pose[held]], 1).reshape(-1, 24, 3)
        rate = tracks.fps / _step(tracks.frame[own])
        transl = tracks.transl[held].astype(np.float64)
        files[f"person_{number:02d}.bvh"] = bvh_text(rest, vectors, transl, rate, unit).encode()
        files[f"person_{number:02d}_amass"] = amass_fields(
            tracks.global_orient[held], tracks.body_pose[held], betas, transl, rest[0], rate
        )
    return files


def _step(frames: NDArray[np.int64]) -> int:
    """Frames between two rows."""
    return max(1, int(np.median(np.diff(frames)))) if len(frames) > 1 else 1


def _held(frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each frame from the first to the last, the newest row up to it."""
    every = np.arange(frames[0], frames[-1] + 1, _step(frames))
    return np.searchsorted(frames, every, side="right") - 1


def joints_csv(tracks: Tracks, names: Sequence[str] = JOINTS30.joints) -> str:
    """One line for each person and frame: joints3d in metres, camera frame."""
    head = ["frame", "time", "track", "interpolated"] + [f"{name}_{axis}" for name in names for axis in "xyz"]
    lines = [",".join(head)]
    for row in range(len(tracks.frame)):
        values = ",".join(f"{v:.5f}" for v in tracks.joints3d[row].ravel())
        lines.append(
            f"{tracks.frame[row]},{tracks.time[row]:.6f},{tracks.track[row]},{int(tracks.interpolated[row])},{values}"
        )
    return "\n".join(lines) + "\n"
