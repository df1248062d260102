"""The bodies of a scene as GLB and OBJ, in glTF's frame: metres, y up, the camera at the origin looking along -z."""

import io
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image

from dpmesh.body.files import free_body
from dpmesh.body.layer import BodyModel
from dpmesh.errors import ConfigError
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.inference.glb import TO_GLTF, Camera, Skeleton, SkinnedBody, glb_parts
from dpmesh.inference.scene_data import Person, SceneData
from dpmesh.render.overlay import LONGEST, palette
from dpmesh.render.shading import vertex_normals
from dpmesh.skeletons import SMPL24

_ALIKE = 1e-3
"""Metres. A body whose vertices differ by more is not the scene's."""


def glb_of(scene: SceneData, with_image: bool = False, hypotheses: bool = False) -> bytes:
    """All people as skinned meshes with the 24 joints of SMPL's tree, the camera, and the image behind them on wish.
    hypotheses: with the second, third, ... of each person, as person_00_h1, person_00_h2, ...

    Raises ConfigError for a loaded scene whose body is not known.
    """
    camera = Camera(scene.K, scene.image_size)
    jpeg = jpeg_of(scene) if with_image else None
    if not scene.people:
        return b"".join(glb_parts(Skeleton((), (), np.zeros((0, 0)), scene.faces), (), camera, jpeg))
    body = _body_of(scene)
    weights = body.skinning_weights.cpu().numpy()
    skeleton = Skeleton(SMPL24.joints, body.parents, weights, scene.faces)
    colours = palette(len(scene.people))
    bodies = [
        _skinned(body, person, scene, f"person_{i:02d}", colour)
        for i, (person, colour) in enumerate(zip(scene.people, colours, strict=True))
    ]
    if hypotheses:
        for i, (person, colour) in enumerate(zip(scene.people, colours, strict=True)):
            bodies += [
                _skinned(body, other, scene, hypothesis_name(i, k), colour, checked=False)
                for k, other in enumerate(others_of(person), 1)
            ]
    depth = max(float(person.vertices[:, 2].max()) for person in scene.people)
    return b"".join(glb_parts(skeleton, bodies, camera, jpeg, depth))


def hypothesis_name(person: int, number: int) -> str:
    """Of a hypothesis's node; the first, the person's own, is number 0."""
    return f"person_{person:02d}_h{number}"


def others_of(person: Person) -> list[Person]:
    """The second, third, ... hypotheses as people without vertices."""
    own = person.hypotheses
    names = ("global_orient", "body_pose", "betas", "transl", "joints3d")
    return [
        replace(person, vertices=person.vertices[:0], **{name: getattr(own, name)[k] for name in names})
        for k in range(1, 0 if own is None else len(own))
    ]


def _body_of(scene: SceneData) -> BodyModel:
    if scene.body is not None:
        return scene.body
    if "body" in scene.weights:
        raise ConfigError(
            "the scene's files do not hold its body",
            where=scene.source or "scene",
            fix="Give its file: Scene.load(folder, body=FILE), or write no GLB.",
        )
    return BodyModel(free_body())


@torch.no_grad()
def _skinned(
    body: BodyModel,
    person: Person,
    scene: SceneData,
    name: str,
    colour: tuple[float, float, float],
    checked: bool = True,
) -> SkinnedBody:
    device = body.faces.device
    vectors = np.concatenate([person.global_orient, person.body_pose]).reshape(1, 24, 3)
    rotations = rotation_matrix(torch.from_numpy(vectors).to(device, torch.float32))
    betas, transl = (
        torch.from_numpy(v[None]).to(device, torch.float32) for v in (person.betas, person.transl)
    )
    again = body(betas, rotations, transl).vertices[0].cpu().numpy() if checked else person.vertices
    if again.shape != person.vertices.shape or not np.abs(again - person.vertices).max(initial=0) < _ALIKE:
        raise ConfigError(
            "the body does not give the scene's vertices",
            where=scene.source or "scene",
            fix="Load the scene with the body that it was made with: Scene.load(folder, body=FILE).",
        )
    vertices, joints = (tensor[0].cpu().numpy() for tensor in body.bind_pose(betas, rotations))
    return SkinnedBody(
        name=name,
        colour=colour,
        vertices=vertices,
        normals=vertex_normals(vertices, scene.faces),
        joints=joints.astype(np.float64),
        rotations=rotations[0].cpu().numpy().astype(np.float64),
        transl=person.transl.astype(np.float64),
    )


def jpeg_of(scene: SceneData) -> bytes | None:
    """The image, at most LONGEST pixels long; None for a loaded scene without it."""
    if scene.image is None:
        return None
    page = Image.fromarray(scene.image)
    page.thumbnail((LONGEST, LONGEST))
    file = io.BytesIO()
    page.save(file, "JPEG", quality=90)
    return file.getvalue()


def obj_files(scene: SceneData) -> dict[str, bytes]:
    """`person_00.obj` and its material `person_00.mtl` for each person: vertices, normals, triangles."""
    files: dict[str, bytes] = {}
    triangles = _obj_faces(scene) if scene.people else b""
    for i, (person, colour) in enumerate(zip(scene.people, palette(len(scene.people)), strict=True)):
        name = f"person_{i:02d}"
        head = (
            "# dpmesh: metres, y up, camera at the origin looking along -z\n"
            f"mtllib {name}.mtl\no {name}\nusemtl {name}\n"
        )
        normals = vertex_normals(person.vertices, scene.faces)
        rows = _lines("v %.5f %.5f %.5f", person.vertices) + _lines("vn %.4f %.4f %.4f", normals)
        files[f"{name}.obj"] = head.encode() + rows + triangles
        rgb = " ".join(f"{c:.4f}" for c in colour)
        files[f"{name}.mtl"] = (
            f"newmtl {name}\nKa 0 0 0\nKd {rgb}\nKs 0.04 0.04 0.04\nNs 20\nillum 2\n".encode()
        )
    return files


def _lines(form: str, rows: Float32[np.ndarray, "n 3"]) -> bytes:
    """One line a row, as numpy.savetxt in a third of its time."""
    return ((form + "\n") * len(rows) % tuple((rows * TO_GLTF).ravel().tolist())).encode()


def _obj_faces(scene: SceneData) -> bytes:
    """The same for all people, so written once; a vertex and its normal have one index."""
    corners = np.repeat(scene.faces + 1, 2, axis=1).ravel().tolist()
    return ("f %d//%d %d//%d %d//%d\n" * len(scene.faces) % tuple(corners)).encode()
