"""A scene as files (docs/output.md)."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dpmesh.errors import ConfigError
from dpmesh.inference.formats import FORMATS, Colouring, wanted_scene
from dpmesh.inference.record import SCENE_SCHEMA
from dpmesh.inference.result_folder import png, write_result
from dpmesh.inference.scene_data import Person, SceneData
from dpmesh.render.overlay import Layer, draw_overlay, draw_side, palette
from dpmesh.render.shading import vertex_normals
from dpmesh.render.sigma import draw_legend, sigma_colours, surface_sigma

_TO_GLTF = np.array([1.0, -1.0, -1.0])
"""Half a turn about x: the camera frame (y down, z forward) to glTF's (y up, z towards the viewer)."""


def save_scene(
    scene: SceneData,
    out: Path,
    name: str,
    formats: Sequence[str] = FORMATS,
    overwrite: bool = False,
    colour: Colouring = "person",
) -> Path:
    """Write `out/name/` as write_result does; returns it. colour: as Scene.save.

    Raises OutputError where it cannot be written, or holds something else and `overwrite` is off; ConfigError where
    sigma is to be drawn and is not known.
    """
    wanted = wanted_scene(scene.source_sha256, scene.source, scene.options, formats, colour)
    return write_result(out, name, wanted, lambda chosen: _contents(scene, chosen, colour), overwrite)


def _contents(scene: SceneData, formats: Sequence[str], colour: Colouring) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    layers = [
        Layer(p.vertices, colour) for p, colour in zip(scene.people, palette(len(scene.people)), strict=True)
    ]
    if "overlay" in formats:
        drawn = layers if colour == "person" else [_by_sigma(person) for person in scene.people]
        pictures = {
            "overlay.png": draw_overlay(scene.image, drawn, scene.faces, scene.K),
            "side.png": draw_side(drawn, scene.faces),
        }
        for name, picture in pictures.items():
            files[name] = png(picture if colour == "person" else draw_legend(picture))
    if "glb" in formats:
        files["scene.glb"] = _glb(scene, layers)
    if "obj" in formats:
        triangles = _obj_faces(scene) if scene.people else b""
        for i, person in enumerate(scene.people):
            files[f"person_{i:02d}.obj"] = _obj_vertices(person.vertices, i) + triangles
    if "npz" in formats:
        files["scene.npz"] = _npz(scene)
    if "json" in formats:
        files["scene.json"] = (json.dumps(as_json(scene), indent=1, allow_nan=False) + "\n").encode()
    return files


def _by_sigma(person: Person) -> Layer:
    """Its surface by how sure the joints near it are; raises ConfigError where that is not known."""
    if not np.isfinite(person.joint_sigma).all():
        raise ConfigError(
            "this answer does not tell how sure it is",
            where="colour",
            fix="Colour by person, or use weights that tell it, without refining.",
        )
    sigma = surface_sigma(person.vertices, person.joints3d, person.joint_sigma)
    return Layer(person.vertices, (0.85, 0.85, 0.85), sigma_colours(sigma))


def as_json(scene: SceneData) -> dict[str, object]:
    """Everything but the mesh, as plain lists and numbers."""

    def plain(array: Float[np.ndarray, "..."]) -> object:
        return np.round(np.asarray(array, np.float64), 8).tolist()

    def person(p: Person) -> dict[str, object]:
        told = plain(p.joint_sigma) if np.isfinite(p.joint_sigma).all() else None
        return {
            "score": round(float(p.score), 6),
            **{n: plain(getattr(p, n)) for n in names},
            "joint_sigma": told,
        }

    names = ("box", "keypoints2d", "global_orient", "body_pose", "betas", "transl", "joints3d", "joints2d")
    return {
        "schema": SCENE_SCHEMA,
        "source": scene.source,
        "source_sha256": scene.source_sha256,
        "options": dict(scene.options),
        "image_size": list(scene.image_size),
        "K": plain(scene.K),
        "focal_source": scene.focal_source,
        "weights": dict(scene.weights),
        "fallbacks": dict(scene.fallbacks),
        "notes": list(scene.notes),
        "joint_names": list(scene.joint_names),
        "people": [person(p) for p in scene.people],
    }


def _npz(scene: SceneData) -> bytes:
    """The arrays of docs/output.md: no objects, so that no pickle is needed to read them."""
    one = ("keypoints2d", "global_orient", "body_pose", "betas", "transl", "vertices", "joints3d", "joints2d")
    arrays: dict[str, Any] = {name: scene.stacked(name) for name in (*one, "score", "joint_sigma")}
    file = io.BytesIO()
    np.savez_compressed(
        file,
        image_size=np.array(scene.image_size, np.int64),
        K=np.asarray(scene.K, np.float64),
        boxes=scene.stacked("box"),
        faces=np.asarray(scene.faces, np.int32),
        joint_names=np.array(scene.joint_names, dtype=np.str_),
        **arrays,
    )
    return file.getvalue()


def _glb(scene: SceneData, layers: Sequence[Layer]) -> bytes:
    """All people, a node and a material each, in glTF's frame: metres, y up, the camera at the origin."""
    if not layers:
        return _empty_glb()
    import trimesh  # slow to import, and only this needs it
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    world = trimesh.Scene()
    for i, layer in enumerate(layers):
        linear = [((c + 0.055) / 1.055) ** 2.4 for c in layer.colour]  # glTF's factor is linear, ours is sRGB
        name = f"person_{i:02d}"
        material = PBRMaterial(
            name=name, baseColorFactor=[*linear, 1.0], metallicFactor=0.0, roughnessFactor=0.7
        )
        mesh = trimesh.Trimesh(
            layer.vertices * _TO_GLTF,
            scene.faces,
            vertex_normals=vertex_normals(layer.vertices, scene.faces) * _TO_GLTF,
            process=False,
            visual=TextureVisuals(material=material),
        )
        world.add_geometry(mesh, node_name=name, geom_name=name)
    data = world.export(file_type="glb", include_normals=True)
    assert isinstance(data, bytes)
    return data


def _empty_glb() -> bytes:
    """A valid binary glTF with an empty scene; trimesh refuses to write one."""
    text = b'{"asset":{"version":"2.0","generator":"dpmesh"},"scene":0,"scenes":[{}]}'
    text += b" " * (-len(text) % 4)
    head = b"glTF" + (2).to_bytes(4, "little") + (20 + len(text)).to_bytes(4, "little")
    return head + len(text).to_bytes(4, "little") + b"JSON" + text


def _obj_vertices(vertices: Float[np.ndarray, "v 3"], index: int) -> bytes:
    """One body in the same frame as the GLB (metres, y up)."""
    file = io.StringIO()
    file.write(f"# dpmesh: metres, y up, camera at the origin looking along -z\no person_{index:02d}\n")
    np.savetxt(file, vertices * _TO_GLTF, fmt="v %.5f %.5f %.5f")
    return file.getvalue().encode()


def _obj_faces(scene: SceneData) -> bytes:
    """The same for everybody, so written once."""
    file = io.StringIO()
    np.savetxt(file, scene.faces + 1, fmt="f %d %d %d")
    return file.getvalue().encode()
