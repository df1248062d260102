"""Readers of motion capture: BVH, exponential-map text, DeepMimic JSON, and AMASS (ASF/AMC: acclaim.py).

AMASS holds SMPL poses. The others give a `Motion`: a skeleton of its own, still to be retargeted
(retarget.py). Text is parsed here; nothing is executed or unpickled. A file that is not what it should be
raises InputError with the line or field.
"""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation  # pyright: ignore[reportMissingTypeStubs] (it has none)

from dpmesh.errors import InputError
from dpmesh.io import read_bytes, read_json

Array = NDArray[np.float64]
P = ParamSpec("P")
Read = TypeVar("Read")

LARGEST_TEXT = 2**28
LARGEST_ARRAY = 2**30
"""Bytes of a text file, and of an array of an AMASS file once it is unpacked."""
MOST_ROTATIONS = 10_000_000
"""Frames times joints; CMU's longest recording has a tenth of that."""


@dataclass(frozen=True)
class Motion:
    """Frames of a skeleton. In its rest pose (all rotations identity) the joints lie at the summed offsets.

    `offsets` (J, 3): of each joint from its parent, the file's unit, y up.  `rotations` (F, J, 3, 3): of
    each joint relative to its parent.  `root` (F, 3): position of joint 0, the file's unit.  `fps`: frames
    per second.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: Float64[NDArray[np.float64], "j 3"]
    rotations: Float64[NDArray[np.float64], "f j 3 3"]
    root: Float64[NDArray[np.float64], "f 3"]
    fps: float

    @property
    def finite(self) -> bool:
        """Whether it has frames and all numbers are finite."""
        arrays = (self.offsets, self.rotations, self.root)
        return len(self.rotations) > 0 and 0 < self.fps < np.inf and all(np.isfinite(a).all() for a in arrays)

    def every(self, step: int, start: int = 0) -> "Motion":
        """Every step-th frame from `start` on."""
        taken = slice(start, None, step)
        return Motion(
            self.names, self.parents, self.offsets, self.rotations[taken], self.root[taken], self.fps / step
        )

    def global_rotations(self) -> Float64[NDArray[np.float64], "f j 3 3"]:
        """Rotation of each joint in the world."""
        out = np.array(self.rotations)
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                out[:, joint] = out[:, parent] @ out[:, joint]
        return out


def euler(order: str, degrees: Float[NDArray[np.float64], "n k"]) -> Float64[NDArray[np.float64], "n 3 3"]:
    """Rotation matrices of Euler angles, as scipy names the order; no angle at all is the identity."""
    if not order:
        return np.tile(np.eye(3), (len(degrees), 1, 1))
    return np.asarray(Rotation.from_euler(order, degrees, degrees=True).as_matrix(), np.float64)


def checked_reader(
    kind: str,
) -> Callable[[Callable[Concatenate[Path, P], Read]], Callable[Concatenate[Path, P], Read]]:
    """Make every failure of a reader an InputError that names the file, and refuse numbers that are not finite."""

    def of(reader: Callable[Concatenate[Path, P], Read]) -> Callable[Concatenate[Path, P], Read]:
        @wraps(reader)
        def read(path: Path, *args: P.args, **options: P.kwargs) -> Read:
            try:
                motion = reader(path, *args, **options)
            except MemoryError:
                raise InputError("does not fit into memory", where=str(path)) from None
            except InputError:
                raise
            except Exception as error:  # noqa: BLE001  scipy, numpy and zipfile raise a dozen kinds
                line = " ".join(f"{type(error).__name__}: {error}".split())[:100]
                raise InputError(f"not {kind} ({line})", where=str(path)) from None
            if isinstance(motion, Motion) and not motion.finite:
                raise InputError("a number is not finite, or no frame is left", where=str(path))
            return motion

        return read

    return of


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; bytes that are not ASCII are replaced."""
    return read_bytes(path, LARGEST_TEXT).decode("ascii", errors="replace").splitlines()


def empty_rotations(frames: int, joints: int, path: Path) -> Float64[NDArray[np.float64], "f j 3 3"]:
    """An array for all rotations; raises InputError where a file claims more than any recording has."""
    if frames * joints > MOST_ROTATIONS:
        raise InputError(f"{frames:,} frames of {joints:,} joints are more than is read", where=str(path))
    return np.empty((frames, joints, 3, 3))


def _numbers(
    rows: list[str], columns: int, path: Path, separator: str | None = None
) -> Float64[NDArray[np.float64], "f c"]:
    """A table of numbers; raises InputError where a row has another length or holds no numbers."""
    try:
        table = np.array([row.split(separator) for row in rows if row.strip()], np.float64)
    except ValueError as error:
        raise InputError(
            f"motion rows that are not {columns} numbers each ({error})", where=str(path)
        ) from error
    if table.ndim != 2 or table.shape[1] != columns or not np.isfinite(table).all():
        raise InputError(f"motion rows of shape {table.shape}, expected (frames, {columns})", where=str(path))
    return table


@checked_reader("BVH")
def read_bvh(path: Path) -> Motion:
    """Biovision hierarchy: any joint names and channel orders; angles apply in the order of the channels."""
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[list[str]] = []
    stack: list[int] = []
    lines = iter(enumerate(read_lines(path), 1))
    line, rows, frame_time = 0, [], 0.0
    try:
        for line, text in lines:  # noqa: B007 (the error below names it)
            words = text.split()
            match words[:1]:
                case ["ROOT" | "JOINT"]:
                    names.append(words[1])
                    parents.append(stack[-1] if stack else -1)
                    channels.append([])
                    offsets.append([0.0, 0.0, 0.0])
                    stack.append(len(names) - 1)
                case ["End"]:
                    stack.append(-1)  # its offset is the length of the last bone only
                case ["OFFSET"] if stack[-1] >= 0:
                    offsets[stack[-1]] = [float(w) for w in words[1:4]]
                case ["CHANNELS"]:
                    channels[stack[-1]] = words[2 : 2 + int(words[1])]
                case ["}"]:
                    stack.pop()
                case ["Frame"]:
                    frame_time = float(words[2])
                    rows = [text for _, text in lines]
                case _:
                    pass
    except (IndexError, ValueError) as error:
        raise InputError(f"line {line} is not BVH", where=str(path)) from error
    if not names or not 0 < frame_time < np.inf:
        raise InputError("no ROOT or no Frame Time", where=str(path), fix="Is it a BVH file?")
    table = _numbers(rows, sum(map(len, channels)), path)
    rotations = empty_rotations(len(table), len(names), path)
    root, column = np.zeros((len(table), 3)), 0
    for joint, kinds in enumerate(channels):
        turning = [i for i, kind in enumerate(kinds) if kind.endswith("rotation")]
        order = "".join(kinds[i][0] for i in turning)
        rotations[:, joint] = euler(order, table[:, [column + i for i in turning]])
        for i, kind in enumerate(kinds):
            if joint == 0 and kind.endswith("position"):
                root[:, "XYZ".index(kind[0])] = table[:, column + i]
        column += len(kinds)
    return Motion(tuple(names), tuple(parents), np.array(offsets), rotations, root, 1 / frame_time)


_ARM = ("Shoulder", "Arm", "ForeArm", "Hand", "FingerBase", "HandIndex1", "IndexEnd", "Thumb", "ThumbEnd")
_LEG = ("UpLeg", "Leg", "Foot", "ToeBase", "ToeEnd")
EXPMAP_NAMES = (
    "Hips", "LHipJoint", *(f"Left{n}" for n in _LEG), "RHipJoint", *(f"Right{n}" for n in _LEG),
    "LowerBack", "Spine", "Spine1", "Neck", "Neck1", "Head", "HeadEnd",
    *(f"Left{n}" for n in _ARM), *(f"Right{n}" for n in _ARM),
)  # fmt: skip
EXPMAP_PARENTS = (
    -1, 0, 1, 2, 3, 4, 5, 0, 7, 8, 9, 10, 11, 0, 13, 14, 15, 16, 17, 18,
    15, 20, 21, 22, 23, 24, 25, 23, 27, 15, 29, 30, 31, 32, 33, 34, 32, 36,
)  # fmt: skip


@checked_reader("an action text")
def read_expmap(path: Path, fps: float = 120.0) -> Motion:
    """CMU actions as text (Martinez et al. 2017): one frame a line, root position and 38 exponential maps.

    They are transposed against the usual convention. The file holds no bone lengths: offsets are zero, so
    that it needs its first frame, which is a T-pose.
    """
    joints = len(EXPMAP_NAMES)
    table = _numbers(read_lines(path), 3 + 3 * joints, path, ",")
    vectors = np.reshape(-table[:, 3:], (-1, 3))
    matrices = np.asarray(Rotation.from_rotvec(vectors).as_matrix(), np.float64)
    rotations = np.reshape(matrices, (-1, joints, 3, 3))
    return Motion(EXPMAP_NAMES, EXPMAP_PARENTS, np.zeros((joints, 3)), rotations, table[:, :3], fps)


DEEPMIMIC = (
    ("root", -1, 4), ("chest", 0, 4), ("neck", 1, 4), ("right_hip", 0, 4), ("right_knee", 3, 1),
    ("right_ankle", 4, 4), ("right_shoulder", 1, 4), ("right_elbow", 6, 1), ("left_hip", 0, 4),
    ("left_knee", 8, 1), ("left_ankle", 9, 4), ("left_shoulder", 1, 4), ("left_elbow", 11, 1),
)  # fmt: skip
"""Joint, parent, numbers per frame: a quaternion (w, x, y, z), or one angle about z."""


@checked_reader("a DeepMimic motion")
def read_deepmimic(path: Path) -> Motion:
    """Peng et al. 2018, `humanoid3d` clips. Its humanoid faces +x with y up, arms hanging; here it is
    turned to face +z. Frames may have different durations: fps is their mean."""
    content: Any = read_json(path, LARGEST_TEXT)
    table = np.array(content["Frames"], np.float64)
    if not np.isfinite(table).all():
        raise InputError("a number of the frames is not finite", where=str(path))
    if table.ndim != 2 or table.shape[1] != 4 + sum(width for _, _, width in DEEPMIMIC):
        raise InputError(f"frames of shape {table.shape}, expected (frames, 44)", where=str(path))
    turn = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])  # x forward -> z forward
    rotations, column = empty_rotations(len(table), len(DEEPMIMIC), path), 4
    for joint, (_, _, width) in enumerate(DEEPMIMIC):
        values = table[:, column : column + width]
        if width == 4:
            matrices = np.asarray(Rotation.from_quat(np.roll(values, -1, axis=1)).as_matrix())
        else:
            matrices = euler("z", np.degrees(values))
        rotations[:, joint] = turn @ matrices @ np.transpose(turn)
        column += width
    names, parents = tuple(n for n, _, _ in DEEPMIMIC), tuple(p for _, p, _ in DEEPMIMIC)
    durations = table[:-1, 0]
    fps = 1 / float(durations.mean()) if len(durations) and durations.mean() > 0 else 30.0
    return Motion(
        names, parents, np.zeros((len(names), 3)), rotations, table[:, 1:4] @ np.transpose(turn), fps
    )


@checked_reader("an AMASS file")
def read_amass(path: Path) -> tuple[Float64[NDArray[np.float64], "f 24 3"], float]:
    """AMASS `.npz`: (poses as axis-angle of SMPL's 24 joints in a y-up world, frames per second).

    `poses` has 156 (SMPL+H), 165 (SMPL-X) or 72 (SMPL) numbers a frame: root and 21 body joints come first
    in all. SMPL-X files have the same as `root_orient` and `pose_body`, which are enough. AMASS worlds have z up.
    The hands become identity. Raises InputError for another file: AMASS's own shape files have no poses.
    """
    data = io.BytesIO(read_bytes(path, LARGEST_ARRAY))
    with zipfile.ZipFile(data) as archive:
        if any(member.file_size > LARGEST_ARRAY for member in archive.infolist()):
            raise InputError(f"an array of more than {LARGEST_ARRAY:,} bytes", where=str(path))
    data.seek(0)
    with np.load(data, allow_pickle=False) as file:
        key = next((k for k in ("mocap_framerate", "mocap_frame_rate") if k in file), None)
        parts = ("poses",) if "poses" in file else ("root_orient", "pose_body")
        if key is None or any(part not in file for part in parts):
            raise InputError("no poses or no frame rate, as AMASS has them", where=str(path))
        stored = [np.asarray(file[part]) for part in parts]
        fps = float(np.asarray(file[key], np.float64).item())
    for array in stored:
        if array.dtype.kind not in "fiu":
            raise InputError(f"poses of {array.dtype} are no numbers", where=str(path))
    poses = np.concatenate([array.astype(np.float64) for array in stored], axis=-1)
    wide = (66,) if len(parts) > 1 else (72, 156, 165)
    if poses.ndim != 2 or poses.shape[1] not in wide or not np.isfinite(poses).all():
        raise InputError(
            f"poses of shape {poses.shape}, expected finite (frames, {' or '.join(map(str, wide))})",
            where=str(path),
        )
    if not 0 < fps < 1e5:
        raise InputError(f"{fps} frames a second", where=str(path))
    out = np.zeros((len(poses), 24, 3))
    out[:, :22] = np.reshape(poses[:, :66], (-1, 22, 3))
    upright = Rotation.from_rotvec([-np.pi / 2, 0, 0])
    if len(poses):
        out[:, 0] = (upright * Rotation.from_rotvec(out[:, 0])).as_rotvec()
    return out, fps
