"""Readers of motion files, on small files written in the real layouts."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dpmesh.data.acclaim import read_amc, read_asf
from dpmesh.data.motion_files import (
    DEEPMIMIC,
    EXPMAP_NAMES,
    EXPMAP_PARENTS,
    read_amass,
    read_bvh,
    read_deepmimic,
    read_expmap,
)
from dpmesh.errors import InputError

BVH = """HIERARCHY
ROOT hip
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT abdomen
  {
    OFFSET 0 20.5 -0.5
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 9 9
    }
  }
  JOINT thigh
  {
    OFFSET 9 -3 0
    CHANNELS 3 Xrotation Yrotation Zrotation
  }
}
MOTION
Frames: 2
Frame Time: 0.008333333
1 2 3 0 0 0 0 0 0 0 0 0
4 5 6 10 20 30 40 50 60 70 80 90
"""
ASF = """# comment
:version 1.10
:units
  mass 1.0
  length 0.45
  angle deg
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
  begin
     id 1
     name lhipjoint
     direction 0.6 -0.8 0
     length 2.5
     axis 0 0 0  XYZ
  end
  begin
     id 2
     name lfemur
     direction 0.34202 -0.939693 0
     length 7.5
     axis 0 0 20  XYZ
    dof rx ry rz
    limits (-160.0 20.0)
           (-70.0 70.0)
           (-60.0 70.0)
  end
  begin
     id 3
     name ltibia
     direction 0.34202 -0.939693 0
     length 7.2
     axis 0 0 20   XYZ
    dof rx
    limits (-10.0 170.0)
  end
:hierarchy
  begin
    root lhipjoint
    lhipjoint lfemur
    lfemur ltibia
  end
"""
AMC = """#!OML:ASF file
:FULLY-SPECIFIED
:DEGREES
1
root 1 2 3 10 20 30
lfemur 5 6 7
ltibia 40
2
root 1 2 4 0 0 0
lfemur 0 0 0
ltibia 0
"""


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_bvh_rotates_in_the_order_of_its_channels(tmp_path: Path) -> None:
    motion = read_bvh(write(tmp_path, "a.bvh", BVH))
    assert motion.names == ("hip", "abdomen", "thigh") and motion.parents == (-1, 0, 0)
    assert np.array_equal(motion.offsets, [[0, 0, 0], [0, 20.5, -0.5], [9, -3, 0]])
    assert np.array_equal(motion.root, [[1, 2, 3], [4, 5, 6]]) and motion.fps == pytest.approx(120, abs=0.01)

    def r(axis: str, angle: float) -> np.ndarray:
        return Rotation.from_euler(axis, angle, degrees=True).as_matrix()

    assert np.allclose(motion.rotations[1, 0], r("z", 10) @ r("y", 20) @ r("x", 30))
    assert np.allclose(motion.rotations[1, 1], r("z", 40) @ r("x", 50) @ r("y", 60))
    assert np.allclose(motion.rotations[1, 2], r("x", 70) @ r("y", 80) @ r("z", 90))
    assert np.allclose(motion.global_rotations()[1, 2], motion.rotations[1, 0] @ motion.rotations[1, 2])
    assert np.allclose(motion.rotations[0], np.eye(3))


@pytest.mark.parametrize(
    "text",
    ["", "JPEG", BVH.replace("4 5 6", "4 5"), BVH.replace("4 5 6", "4 x 6"), BVH.replace("0 20.5", "0 y")],
)
def test_broken_bvh_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"a\.bvh"):
        read_bvh(write(tmp_path, "a.bvh", text))


def test_amc_turns_about_the_axes_of_its_bones(tmp_path: Path) -> None:
    bones = read_asf(write(tmp_path, "07.asf", ASF))
    assert [b.name for b in bones] == ["root", "lhipjoint", "lfemur", "ltibia"]
    assert [b.dof for b in bones] == ["xyz", "", "xyz", "x"]
    motion = read_amc(write(tmp_path, "07_01.amc", AMC), bones)
    assert motion.parents == (-1, 0, 1, 2) and motion.rotations.shape == (2, 4, 3, 3)
    assert np.array_equal(motion.root, [[1, 2, 3], [1, 2, 4]])
    c = Rotation.from_euler("z", 20, degrees=True)
    m = Rotation.from_euler("x", 40, degrees=True)
    assert np.allclose(motion.rotations[0, 3], (c * m * c.inv()).as_matrix())
    # x first, then y, then z, about fixed axes
    x, y, z = (Rotation.from_euler(a, v, degrees=True) for a, v in (("x", 10), ("y", 20), ("z", 30)))
    assert np.allclose(motion.rotations[0, 0], (z * y * x).as_matrix())
    assert np.allclose(motion.rotations[:, 1], np.eye(3)) and np.allclose(motion.rotations[1], np.eye(3))
    # The knee sits at the end of the thigh bone.
    assert np.allclose(motion.offsets[3], 7.5 * np.array([0.34202, -0.939693, 0]))


@pytest.mark.parametrize(
    "text", [AMC.replace("ltibia 40\n", ""), AMC.replace("5 6 7", "5 6"), AMC + "tail 1\n", ""]
)
def test_broken_amc_is_refused(tmp_path: Path, text: str) -> None:
    bones = read_asf(write(tmp_path, "07.asf", ASF))
    with pytest.raises(InputError, match="07_01"):
        read_amc(write(tmp_path, "07_01.amc", text), bones)


def test_asf_without_an_axis_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ASF"):
        read_asf(write(tmp_path, "b.asf", ASF.replace("axis 0 0 20  XYZ", "")))


def test_expmap_is_transposed(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 117)).round(4)
    text = "\n".join(",".join(map(str, row)) for row in rows)
    motion = read_expmap(write(tmp_path, "walking_1.txt", text))
    assert len(EXPMAP_NAMES) == len(EXPMAP_PARENTS) == 38
    knee = EXPMAP_NAMES.index("LeftLeg")
    vector = rows[1, 3 + 3 * knee : 6 + 3 * knee]
    assert np.allclose(motion.rotations[1, knee], Rotation.from_rotvec(vector).as_matrix().T)
    assert np.array_equal(motion.root, rows[:, :3])
    parent = {n: EXPMAP_NAMES[p] for n, p in zip(EXPMAP_NAMES, EXPMAP_PARENTS, strict=True)}
    assert parent["RightLeg"] == "RightUpLeg" and parent["Neck"] == "Spine1" and parent["Head"] == "Neck1"
    assert parent["LeftShoulder"] == parent["RightShoulder"] == "Spine1"
    with pytest.raises(InputError, match="117"):
        read_expmap(write(tmp_path, "short.txt", "1,2,3\n"))


def test_deepmimic_faces_along_z(tmp_path: Path) -> None:
    names = [n for n, _, _ in DEEPMIMIC]
    angle = 0.7
    row = [0.05, 1.0, 2.0, 3.0]  # duration, then one metre ahead, two up, three to the right
    for name, _, width in DEEPMIMIC:
        row += [angle if name == "right_elbow" else 0.0] if width == 1 else [1.0, 0.0, 0.0, 0.0]
    path = write(tmp_path, "humanoid3d_x.txt", json.dumps({"Loop": "none", "Frames": [row, row]}))
    motion = read_deepmimic(path)
    assert motion.fps == pytest.approx(20)
    assert np.allclose(motion.root[0], [-3, 2, 1])
    # A bent elbow brings the hanging forearm forwards.
    forearm = motion.rotations[0, names.index("right_elbow")] @ [0, -1, 0]
    assert np.allclose(forearm, [0, -np.cos(angle), np.sin(angle)])
    with pytest.raises(InputError, match="DeepMimic"):
        read_deepmimic(write(tmp_path, "humanoid3d_y.txt", "{}"))


def test_hostile_motion_files_are_one_line(tmp_path: Path) -> None:
    """Unknown channels, a cycle of bones, no frame, arrays larger than the memory, specials, mutations."""
    for text in (
        BVH.replace("Zrotation", "Qrotation"),
        BVH.replace("Zrotation Yrotation Xrotation", "Zrotation Zrotation Zrotation"),
        BVH.replace("Xposition", "Qposition"),
        BVH.replace("0 20.5 -0.5", "0 20.5"),
        BVH.replace("0 20.5 -0.5", "0 nan 1"),
        BVH.replace("0.008333333", "nan"),
        BVH.replace("0.008333333", "1e999"),
    ):
        with pytest.raises(InputError, match=r"a\.bvh"):
            read_bvh(write(tmp_path, "a.bvh", text))
    for text in (
        ASF.replace("root lhipjoint", "ltibia lhipjoint"),
        ASF.replace("name lfemur", "name"),
        ASF.replace("0.34202 -0.939693 0", "0.3"),
    ):
        with pytest.raises(InputError, match=r"a\.as?m?[fc]"):
            read_amc(write(tmp_path, "a.amc", AMC), read_asf(write(tmp_path, "a.asf", text)))
    with pytest.raises(InputError, match="not finite"):
        read_amc(
            write(tmp_path, "a.amc", AMC.replace("5 6 7", "nan 6 7")), read_asf(write(tmp_path, "b.asf", ASF))
        )
    for content in (
        {"Frames": [[0.0] * 44]},
        {"Frames": [[1e999] * 44]},
        {"Frames": [[10**400]]},
        {"Frames": {}},
        [],
    ):
        with pytest.raises(InputError, match=r"a\.json"):
            read_deepmimic(write(tmp_path, "a.json", json.dumps(content)))
    os.mkfifo(tmp_path / "fifo")
    for reader in (read_bvh, read_asf, read_expmap, read_deepmimic, read_amass):
        with pytest.raises(InputError, match="not a regular file"):
            reader(tmp_path / "fifo")
    refused = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        text = list((BVH, ASF, AMC)[seed % 3])
        for at in rng.integers(len(text), size=3):
            text[at] = chr(rng.integers(32, 127))
        path = write(tmp_path, "m", "".join(text[: len(text) if seed % 2 else int(rng.integers(len(text)))]))
        try:
            (read_bvh, read_asf, lambda p: read_amc(p, read_asf(tmp_path / "b.asf")))[seed % 3](path)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert 100 < refused < 200, refused
