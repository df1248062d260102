"""Tracks as files, read back by parsers that know nothing of the writers."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from video_tracks import FPS, two_people

from dpmesh.animation.amass import amass_fields
from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.skeletons import SMPL24
from dpmesh.video.exports import animated_glb, csv_lines, write_motions
from dpmesh.video.files import is_result, save_tables
from dpmesh.video.solve import solve_tracks
from dpmesh.video.tracks import ARRAYS, Tracks


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel(free_body())


@pytest.fixture(scope="module")
def tracks(body: BodyModel) -> Tracks:
    return two_people(body)


def posed(body: BodyModel, tracks: Tracks, row: int) -> np.ndarray:
    """SMPL's 24 joints of a row, metres, camera frame."""
    vectors = np.concatenate([tracks.global_orient[row], tracks.body_pose[row]]).reshape(1, 24, 3)
    shape, transl = tracks.betas_of(np.array([row])), tracks.transl[row : row + 1]
    turns = rotation_matrix(torch.from_numpy(vectors))
    return body(torch.from_numpy(shape), turns, torch.from_numpy(transl)).joints[0].numpy()


def test_tables_come_back(tracks: Tracks, tmp_path: Path) -> None:
    save_tables(tracks, tmp_path, {"source": "a.mp4"})
    again = Tracks.load(tmp_path)
    assert repr(again) == "Tracks(2 people, 25 frames, 25 fps, 640×480)" and is_result(tmp_path)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(again, name), getattr(tracks, name))
    people = json.loads((tmp_path / "tracks.json").read_text())["people"]
    assert [(p["track"], p["rows"]) for p in people] == [(0, 25), (3, 20)]
    (tmp_path / "tracks.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="damaged"):
        Tracks.load(tmp_path)
    (tmp_path / "mine.txt").touch()
    assert not is_result(tmp_path)


def test_gaps_are_filled_and_motion_is_kept(tracks: Tracks, body: BodyModel) -> None:
    solved = solve_tracks(tracks, body)
    own = solved.of(3)
    assert len(own) == 25 and solved.interpolated[own].nonzero()[0].tolist() == [8, 9, 10, 11, 12]
    first, before = solved.of(0), tracks.of(0)
    assert np.linalg.norm(solved.joints3d[first] - tracks.joints3d[before], axis=-1).mean() < 0.01
    assert np.linalg.norm(solved.joints2d[first] - tracks.joints2d[before], axis=-1).mean() < 1.5
    assert (np.diff(solved.frame) >= 0).all()
    nobody = solve_tracks(tracks.with_rows(np.zeros(0, np.int64)), body)
    assert len(nobody) == 0 and nobody.joints3d.shape == (0, 30, 3)


@dataclass
class Bvh:
    """A BVH file, parsed by its published grammar."""

    names: list[str] = field(default_factory=list)
    parent: dict[str, str | None] = field(default_factory=dict)
    offset: dict[str, np.ndarray] = field(default_factory=dict)
    channels: dict[str, list[str]] = field(default_factory=dict)

    def __init__(self, text: str) -> None:
        self.names, self.parent, self.offset, self.channels = [], {}, {}, {}
        head, motion = text.split("MOTION\n")
        open_joints: list[str] = []
        here = ""
        for line in head.splitlines():
            match line.split():
                case ["ROOT" | "JOINT", name]:
                    self.names.append(name)
                    self.parent[name] = next((one for one in reversed(open_joints) if one), None)
                    here = name
                case ["End", "Site"]:
                    here = ""
                case ["{"]:
                    open_joints.append(here)
                case ["}"]:
                    open_joints.pop()
                case ["OFFSET", *numbers] if here:
                    self.offset[here] = np.array(numbers, float)
                case ["CHANNELS", _, *kinds] if here:
                    self.channels[here] = kinds
                case _:
                    pass
        self.time = float(re.findall(r"Frame Time: (\S+)", motion)[0])
        self.frames = np.array([line.split() for line in motion.splitlines()[2:]], float)
        assert len(self.frames) == int(re.findall(r"Frames: (\d+)", motion)[0])

    def joints(self, frame: int) -> dict[str, np.ndarray]:
        numbers = iter(self.frames[frame])
        place, turn = dict[str, np.ndarray](), dict[str, Rotation]()
        for name in self.names:
            values = {channel: next(numbers) for channel in self.channels[name]}
            order = "".join(kind[0] for kind in self.channels[name] if kind.endswith("rotation"))
            own = Rotation.from_euler(order, [values[f"{axis}rotation"] for axis in order], degrees=True)
            above = self.parent[name]
            if above is None:
                place[name], turn[name] = np.array([values[f"{axis}position"] for axis in "XYZ"]), own
            else:
                place[name] = place[above] + turn[above].apply(self.offset[name])
                turn[name] = turn[above] * own
        return place


@pytest.mark.parametrize(("unit", "metres"), [("cm", 0.01), ("m", 1.0)])
def test_bvh_gives_the_joints(
    tracks: Tracks, body: BodyModel, tmp_path: Path, unit: str, metres: float
) -> None:
    write_motions(tracks, body, tmp_path, ["bvh"], unit)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["person_00.bvh", "person_03.bvh"]
    bvh = Bvh((tmp_path / "person_00.bvh").read_text())
    assert set(bvh.names) == set(SMPL24.joints) and bvh.time == pytest.approx(1 / FPS, abs=1e-7)
    for frame in (0, 7, 24):
        place = bvh.joints(frame)
        got = np.stack([place[name] for name in SMPL24.joints]) * metres
        wanted = posed(body, tracks, int(tracks.of(0)[frame])) * [1, -1, -1]
        np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_amass_gives_the_joints_in_a_world_with_z_up(tracks: Tracks, body: BodyModel) -> None:
    own, identity = tracks.of(0), torch.eye(3).expand(1, 24, 3, 3)
    _, rest = body.bind_pose(torch.from_numpy(tracks.betas[:1]), identity)
    fields = amass_fields(
        tracks.global_orient[own], tracks.body_pose[own], tracks.betas[0], tracks.transl[own].astype(float),
        rest[0, 0].numpy().astype(float), FPS,
    )  # fmt: skip
    assert fields["poses"].shape == (25, 72) and str(fields["gender"]) == "neutral"
    turns = rotation_matrix(torch.from_numpy(fields["poses"][6].reshape(1, 24, 3)).float())
    trans = torch.from_numpy(fields["trans"][6:7]).float()
    camera = posed(body, tracks, int(own[6]))
    world = np.stack([camera[:, 0], camera[:, 2], -camera[:, 1]], 1)
    got = body(torch.from_numpy(tracks.betas[:1]), turns, trans).joints[0].numpy()
    np.testing.assert_allclose(got, world, atol=1e-5)


def test_csv_has_a_line_for_each_row(tracks: Tracks) -> None:
    lines = [*csv_lines(tracks)]
    assert len(lines) == 46 and lines[0].startswith("frame,time,track,interpolated,Pelvis_x")
    values = np.array(lines[1].split(","), float)
    np.testing.assert_allclose(values[4:].reshape(30, 3), tracks.joints3d[0], atol=1e-5)


def test_frames_that_were_not_read_are_no_absence(tracks: Tracks, body: BodyModel) -> None:
    """With every second frame a person is in the GLB all the time but for the real gap."""
    some = tracks.with_rows(tracks.frame % 2 == 0)
    content = b"".join(animated_glb(some, body, body.faces.numpy().astype(np.int32)))
    document = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    paths = [channel["target"]["path"] for channel in document["animations"][0]["channels"]]
    assert paths.count("scale") == 1  # the second person's


def test_the_glb_is_animated(tracks: Tracks, body: BodyModel) -> None:
    """Its nodes, moved by the channels at a key, put the joints where they are."""
    content = b"".join(animated_glb(tracks, body, body.faces.numpy().astype(np.int32)))
    length = int.from_bytes(content[12:16], "little")
    document, buffer = json.loads(content[20 : 20 + length]), content[28 + length :]

    def values(index: int) -> np.ndarray:
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        return np.frombuffer(buffer, "<f4", accessor["count"] * width, view["byteOffset"]).reshape(-1, width)

    (animation,) = document["animations"]
    at = {
        (channel["target"]["node"], channel["target"]["path"]): values(
            animation["samplers"][channel["sampler"]]["output"]
        )
        for channel in animation["channels"]
    }
    nodes = document["nodes"]
    node = next(i for i, entry in enumerate(nodes) if entry["name"] == "person_03" and "children" in entry)
    key = 10  # after the gap
    place: dict[str, np.ndarray] = {}

    def walk(index: int, turn: Rotation, origin: np.ndarray) -> None:
        entry = nodes[index]
        place[entry["name"]] = origin + turn.apply(entry.get("translation", [0, 0, 0]))
        for child in entry.get("children", []):
            walk(child, turn * Rotation.from_quat(at[index, "rotation"][key]), place[entry["name"]])

    walk(nodes[node]["children"][0], Rotation.identity(), at[node, "translation"][key])
    got = np.stack([place[name] for name in SMPL24.joints])
    wanted = posed(body, tracks, int(tracks.of(3)[key])) * [1, -1, -1]
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    # Absent. Blender's FBX exporter inverts the matrix of each body, so a scale of 0 is none.
    assert 1e-4 <= at[node, "scale"].min() < 0.01 and at[node, "scale"].max() == 1
