"""Reader of Acclaim's motion capture: an ASF skeleton and AMC frames, as in the CMU database."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from dpmesh.data.motion_files import Motion, checked_reader, empty_rotations, euler, read_lines
from dpmesh.errors import InputError


@dataclass(frozen=True)
class Bone:
    """A bone of an ASF file: its direction in the world at rest, length, axis C, degrees of freedom.

    The bone's rotation acts at its start, which is its parent's end.
    """

    name: str
    parent: int
    direction: Float64[NDArray[np.float64], "3"]
    length: float
    axis: Float64[NDArray[np.float64], "3 3"]
    dof: str


@checked_reader("an ASF skeleton")
def read_asf(path: Path) -> tuple[Bone, ...]:
    """The skeleton of an ASF file, root first (Acclaim format as in the CMU database; degrees)."""
    fields: dict[str, dict[str, list[str]]] = {"root": {}}
    parents: dict[str, str] = {}
    name, section = "root", ""
    for line, text in enumerate(read_lines(path), 1):
        words = text.split()
        match words[:1]:
            case [word] if word.startswith(":"):
                section = word
            case ["begin"] if section == ":bonedata":
                name = f"?{line}"
                fields[name] = {}
            case ["name"] if section == ":bonedata":
                fields[words[1]] = fields.pop(name)
                name = words[1]
            case ["direction" | "length" | "axis" | "dof" as key] if section == ":bonedata":
                fields[name][key] = words[1:]
            case [parent] if section == ":hierarchy" and parent not in ("begin", "end"):
                parents.update({child: parent for child in words[1:]})
            case _:
                pass
    names = list(fields)
    bones = tuple(
        _bone(name, names.index(parents[name]) if name in parents else -1, fields[name]) for name in names
    )
    if any(bone.parent >= i for i, bone in enumerate(bones)):  # Motion goes from the root outwards
        raise ValueError("a bone is listed before its parent")
    return bones


def _bone(name: str, parent: int, field: dict[str, list[str]]) -> Bone:
    if parent < 0:
        if name != "root":
            raise ValueError(f"bone {name} hangs on nothing")
        return Bone(name, -1, np.zeros(3), 0.0, np.eye(3), "xyz")
    angles, order = np.array([field["axis"][:3]], np.float64), field["axis"][3].lower()
    dof = "".join(kind[1] for kind in field.get("dof", []) if kind.startswith("r"))
    direction = np.array(field["direction"], np.float64)
    return Bone(name, parent, direction, float(field["length"][0]), euler(order, angles)[0], dof)


@checked_reader("AMC")
def read_amc(path: Path, bones: tuple[Bone, ...], fps: float = 120.0) -> Motion:
    """Frames of an AMC file on the skeleton of its ASF file. CMU records 120 frames per second.

    A joint's rotation in its parent's frame is C·M·C⁻¹: C the bone's axis, M its Euler angles (x, then y,
    then z).
    """
    index = {bone.name: i for i, bone in enumerate(bones)}
    columns: list[list[list[float]]] = [[] for _ in bones]
    for line, text in enumerate(read_lines(path), 1):
        words = text.split()
        if not words or words[0][0] in "#:" or words[0].isdigit():
            continue
        if words[0] not in index:
            raise InputError(f"line {line}: bone {words[0]!r} is not in the skeleton", where=str(path))
        try:
            columns[index[words[0]]].append([float(word) for word in words[1:]])
        except ValueError as error:
            raise InputError(f"line {line} is not AMC", where=str(path)) from error
    frames = len(columns[0])
    rotations = empty_rotations(frames, len(bones), path)
    root = np.zeros((frames, 3))
    for i, bone in enumerate(bones):
        if not bone.dof:
            rotations[:, i] = np.eye(3)
            continue
        width = 6 if i == 0 else len(bone.dof)
        if len(columns[i]) != frames or any(len(row) != width for row in columns[i]) or not frames:
            raise InputError(f"bone {bone.name} has not {width} values in every frame", where=str(path))
        values = np.array(columns[i])
        if i == 0:
            root, values = values[:, :3], values[:, 3:]
        rotations[:, i] = bone.axis @ euler(bone.dof, values) @ np.transpose(bone.axis)
    # A joint sits where its bone starts: its offset from its parent joint is the parent's bone.
    offsets = [
        bones[b.parent].direction * bones[b.parent].length if b.parent >= 0 else np.zeros(3) for b in bones
    ]
    return Motion(
        tuple(b.name for b in bones), tuple(b.parent for b in bones), np.array(offsets), rotations, root, fps
    )
