"""GLB and OBJ, read by other programs: Khronos' validator, three.js and trimesh."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roma
import torch
import trimesh
from gltf_programs import run_node
from PIL import Image

from dpmesh.body.files import BodyArrays, free_body
from dpmesh.body.layer import BodyModel
from dpmesh.errors import ConfigError
from dpmesh.geometry.camera import intrinsics, project
from dpmesh.inference.scene import Person, Scene
from dpmesh.skeletons import JOINTS30, SMPL24

SIZE = (300, 400)
FLIP = np.array([1, -1, -1])


def make_scene(arrays: BodyArrays, count: int = 2, K: np.ndarray | None = None) -> Scene:
    """People in random poses and of random shapes, upright before the camera."""
    body = BodyModel(arrays)
    generator = torch.Generator().manual_seed(1)
    people: list[Person] = []
    for i in range(count):
        vectors = 0.4 * torch.randn(1, 24, 3, generator=generator)
        vectors[:, 0] = torch.tensor([3.0, 0.2, 0.3 * i])
        betas, transl = torch.randn(1, 10, generator=generator), torch.tensor([[0.8 * i - 0.4, 0.1, 3.0 + i]])
        with torch.no_grad():
            posed = body(betas, roma.rotvec_to_rotmat(vectors), transl)
        people.append(
            Person(
                box=np.zeros(4, np.float32),
                keypoints2d=np.zeros((17, 3), np.float32),
                global_orient=vectors[0, 0].numpy(),
                body_pose=vectors[0, 1:].reshape(-1).numpy(),
                betas=betas[0].numpy(),
                transl=transl[0].numpy(),
                vertices=posed.vertices[0].numpy(),
                joints3d=posed.joints30[0].numpy(),
                joints2d=np.zeros((30, 2), np.float32),
                score=0.9,
            )
        )
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    K = intrinsics(500.0, SIZE) if K is None else K
    faces = arrays.faces.astype(np.int32)
    return Scene(K, SIZE, JOINTS30.joints, faces, tuple(people), image, source="a.jpg", body=body)


@pytest.fixture(scope="module")
def arrays() -> BodyArrays:
    return free_body()


@pytest.fixture(scope="module")
def scene(arrays: BodyArrays) -> Scene:
    return make_scene(arrays)


def six_influences(arrays: BodyArrays) -> BodyArrays:
    """The body with small weights added until some vertices have six; rows sum to 1."""
    weights = arrays.weights.astype(np.float64)
    weights[::3, 20:24] += 0.01
    assert (weights > 0).sum(1).max() > 4
    return replace(arrays, weights=(weights / weights.sum(1, keepdims=True)).astype(np.float32))


def write(scene: Scene, folder: Path, name: str = "a", **options: Any) -> Path:
    return scene.save(folder, name, ["glb"], overwrite=True, **options) / "scene.glb"


def off_centre() -> np.ndarray:
    return np.array([[500.0, 0, 150], [0, 520, 170], [0, 0, 1]])


def test_khronos_validator_reports_nothing(scene: Scene, arrays: BodyArrays, tmp_path: Path) -> None:
    """No errors, warnings, infos or hints, but that the image's sides are no powers of two."""
    paths = [
        write(scene, tmp_path, "plain"),
        write(scene, tmp_path, "plane", glb_image=True),
        write(replace(scene, people=()), tmp_path, "empty"),
        write(replace(scene, people=()), tmp_path, "empty_plane", glb_image=True),
        write(replace(scene, K=off_centre()), tmp_path, "off_centre", glb_image=True),
        write(make_scene(six_influences(arrays), 1), tmp_path, "six"),
    ]
    reports = run_node("validate.mjs", *paths)
    codes = [[message["code"] for message in report["issues"]["messages"]] for report in reports]
    npot = ["IMAGE_NPOT_DIMENSIONS"]
    assert codes == [[], npot, [], npot, npot, []]
    info = reports[0]["info"]
    assert info["hasSkins"] and info["maxInfluences"] == 4 and info["drawCallCount"] == 2
    assert reports[5]["info"]["maxInfluences"] == 8
    assert not reports[2]["info"]["hasSkins"] and reports[3]["info"]["hasTextures"]
    broken = bytearray(paths[0].read_bytes())
    broken[4] = 9  # the version
    (tmp_path / "broken.glb").write_bytes(broken)
    assert run_node("validate.mjs", tmp_path / "broken.glb")[0]["issues"]["numErrors"] > 0


def test_three_js_skins_to_the_scenes_vertices(scene: Scene, tmp_path: Path) -> None:
    path = write(scene, tmp_path)
    read = run_node("skin.mjs", path)
    assert set(read["meshes"]) == {"person_00_mesh", "person_01_mesh"}
    assert scene.body is not None
    for i, person in enumerate(scene):
        mesh = read["meshes"][f"person_{i:02d}_mesh"]
        np.testing.assert_allclose(np.array(mesh["vertices"]) * FLIP, person.vertices, atol=1e-5)
        vectors = torch.from_numpy(np.concatenate([person.global_orient, person.body_pose])).reshape(1, 24, 3)
        betas, transl = (torch.from_numpy(v[None]) for v in (person.betas, person.transl))
        with torch.no_grad():
            joints = scene.body(betas, roma.rotvec_to_rotmat(vectors), transl).joints[0].numpy()
        np.testing.assert_allclose(np.array(mesh["joints"]) * FLIP, joints, atol=1e-5)
    camera = read["camera"]
    assert camera["fov"] == pytest.approx(np.degrees(2 * np.arctan(150 / 500)), abs=1e-6)
    assert camera["aspect"] == pytest.approx(400 / 300)
    assert camera["position"] == [0, 0, 0] and camera["direction"] == pytest.approx([0, 0, -1])
    moved = run_node("skin.mjs", path, "person_00")["meshes"]
    for name, shift in (("person_00_mesh", 1), ("person_01_mesh", 0)):
        before, after = (np.array(part[name]["vertices"]) for part in (read["meshes"], moved))
        np.testing.assert_allclose(after - before, [[shift, 0, 0]] * len(before), atol=1e-5)


def read_glb(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    size = int.from_bytes(data[12:16], "little")
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def accessor(document: dict[str, Any], buffer: bytes, index: int) -> np.ndarray:
    entry = document["accessors"][index]
    view = document["bufferViews"][entry["bufferView"]]
    kind = {5126: "<f4", 5121: "u1", 5123: "<u2"}[entry["componentType"]]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}[entry["type"]]
    values = np.frombuffer(buffer, kind, entry["count"] * width, view["byteOffset"])
    return values.reshape(-1, width)


def test_more_than_four_influences(arrays: BodyArrays, tmp_path: Path) -> None:
    """three.js reads four influences, so this file is skinned here, by the specification's formula."""
    scene = make_scene(six_influences(arrays), 1)
    document, buffer = read_glb(write(scene, tmp_path))
    parents = {c: i for i, node in enumerate(document["nodes"]) for c in node.get("children", ())}

    def world(index: int) -> np.ndarray:
        node, matrix = document["nodes"][index], np.eye(4)
        matrix[:3, 3] = node.get("translation", (0, 0, 0))
        matrix[:3, :3] = roma.unitquat_to_rotmat(torch.tensor(node.get("rotation", (0.0, 0, 0, 1)))).numpy()
        return world(parents[index]) @ matrix if index in parents else matrix

    skin = document["skins"][0]
    assert tuple(document["nodes"][j]["name"] for j in skin["joints"]) == SMPL24.joints
    inverse = accessor(document, buffer, skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    matrices = np.stack([world(j) for j in skin["joints"]]) @ inverse
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    points = accessor(document, buffer, attributes["POSITION"])
    points = np.column_stack([points, np.ones(len(points))])
    total, skinned = np.zeros(len(points)), np.zeros((len(points), 4))
    for k in range(2):
        joints = accessor(document, buffer, attributes[f"JOINTS_{k}"])
        weights = accessor(document, buffer, attributes[f"WEIGHTS_{k}"])
        total += weights.sum(1)
        skinned += np.einsum("vk,vkij,vj->vi", weights, matrices[joints], points)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    np.testing.assert_allclose(skinned[:, :3] * FLIP, scene[0].vertices, atol=1e-5)


def test_the_image_plane_fills_the_camera(scene: Scene, tmp_path: Path) -> None:
    """Its corners are the image's, it is behind all people, and its texture is the image."""
    for K in (scene.K, off_centre()):
        path = write(replace(scene, K=K), tmp_path, glb_image=True)
        world = trimesh.load(path)
        assert isinstance(world, trimesh.Scene)
        plane = world.geometry["image"]
        corners = np.array([(-0.5, -0.5), (-0.5, 299.5), (399.5, 299.5), (399.5, -0.5)])
        np.testing.assert_allclose(project(np.asarray(plane.vertices) * FLIP, K), corners, atol=1e-3)
        assert -plane.vertices[:, 2].max() > max(person.vertices[:, 2].max() for person in scene)
        texture = np.asarray(plane.visual.material.baseColorTexture.convert("RGB"), float)
        assert texture.shape == (*SIZE, 3)
        assert np.abs(texture.mean((0, 1)) - np.asarray(scene.image, float).mean((0, 1))).max() < 2
        # trimesh turns v upwards: the upper left corner has u 0, v 1
        np.testing.assert_allclose(plane.visual.uv, [(0, 1), (0, 0), (1, 0), (1, 1)], atol=1e-6)


def test_an_off_centre_camera_sees_the_whole_image(scene: Scene, tmp_path: Path) -> None:
    K = off_centre()
    document, _ = read_glb(write(replace(scene, K=K), tmp_path))
    lens = document["cameras"][0]["perspective"]
    half_height = np.tan(lens["yfov"] / 2)
    assert half_height == pytest.approx((170 + 0.5) / 520)  # down to the upper edge, the farther one
    assert half_height * lens["aspectRatio"] == pytest.approx((400 - 150.5) / 500)
    assert document["nodes"][0]["extras"]["K"] == K.tolist()


def check_normals(mesh: trimesh.Trimesh) -> None:
    """The stored ones agree with trimesh's own, which weigh triangles by their angle."""
    own = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).vertex_normals
    np.testing.assert_allclose(np.linalg.norm(mesh.vertex_normals, axis=1), 1, atol=1e-3)
    assert (np.einsum("ij,ij->i", mesh.vertex_normals, own) > 0.5).mean() > 0.99


def test_the_mesh_in_the_file_is_the_rest_pose(scene: Scene, tmp_path: Path) -> None:
    """What a reader without skins shows: upright, arms out, the shape's height; normals point out."""
    world = trimesh.load(write(scene, tmp_path), process=False)
    assert isinstance(world, trimesh.Scene)
    mesh = world.geometry["person_00"]
    extent = mesh.vertices.max(0) - mesh.vertices.min(0)
    assert 1.4 < extent[1] < 2.2 and extent[0] > 0.7 and extent[2] < 0.6
    check_normals(mesh)
    colours = [tuple(world.geometry[f"person_{i:02d}"].visual.material.baseColorFactor) for i in range(2)]
    assert colours[0] != colours[1]


def test_a_body_that_is_not_the_scenes_is_refused(scene: Scene, arrays: BodyArrays, tmp_path: Path) -> None:
    other = BodyModel(replace(arrays, v_template=arrays.v_template * np.float32(1.1)))
    with pytest.raises(ConfigError, match="does not give"):
        write(replace(scene, body=other), tmp_path)
    known = write(replace(scene, body=None), tmp_path)  # the free body is known without
    assert known.read_bytes() == write(scene, tmp_path, "b").read_bytes()
    with pytest.raises(ConfigError, match="do not hold its body"):
        write(replace(scene, body=None, weights={"body": {"file": "smpl.pkl"}}), tmp_path)


def test_obj_has_normals_and_a_material(scene: Scene, tmp_path: Path) -> None:
    folder = scene.save(tmp_path, "a", ["obj"])
    assert {path.name for path in folder.glob("person*")} == {
        f"person_{i:02d}.{end}" for i in range(2) for end in ("obj", "mtl")
    }
    for i, person in enumerate(scene):
        mesh = trimesh.load(folder / f"person_{i:02d}.obj", process=False)
        assert isinstance(mesh, trimesh.Trimesh)
        np.testing.assert_allclose(mesh.vertices, person.vertices * FLIP, atol=1e-5)
        np.testing.assert_array_equal(mesh.faces, scene.faces)
        check_normals(mesh)
        assert f"newmtl person_{i:02d}\n" in (folder / f"person_{i:02d}.mtl").read_text()
    first, second = (trimesh.load(folder / f"person_{i:02d}.obj").visual.material.diffuse for i in range(2))
    assert first.tolist() != second.tolist()


def test_the_plane_is_part_of_the_result(scene: Scene, tmp_path: Path) -> None:
    known = replace(scene, source_sha256="0" * 64)
    folder = known.save(tmp_path, "a", ["glb"])
    with pytest.raises(Exception, match="--glb-image was off, is on"):
        known.save(tmp_path, "a", ["glb"], glb_image=True)
    before = (folder / "scene.glb").stat().st_mtime_ns
    known.save(tmp_path, "a", ["glb"])
    assert (folder / "scene.glb").stat().st_mtime_ns == before
    known.save(tmp_path, "a", ["json"], glb_image=True)  # no GLB is asked for: no matter


def test_image_of_the_plane_is_bounded(scene: Scene, tmp_path: Path) -> None:
    large = replace(scene, image=np.zeros((2400, 3200, 3), np.uint8), image_size=(2400, 3200))
    document, buffer = read_glb(write(large, tmp_path, glb_image=True))
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    start = view["byteOffset"]
    assert Image.open(io.BytesIO(buffer[start : start + view["byteLength"]])).size == (1600, 1200)
