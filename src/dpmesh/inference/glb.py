"""Binary glTF 2.0: skinned bodies, the camera, and the image on a plane behind them.

mesh_files.py fills it from a scene, result_folder.py puts the bytes on the disk.

Frame of the file: metres, y up, the camera at the origin looking along -z. It is the camera frame (x right, y down,
z forward) after half a turn about x: (x, -y, -z); where a floor is known, y is its height.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dpmesh.inference.gltf import INDICES, VERTICES, Gltf

TO_GLTF = np.array([1.0, -1.0, -1.0])
"""Camera frame to the file's frame, by component."""

_NEAR = 0.05
"""Metres. Nearest depth of the camera; there is no farthest."""
_BEHIND = 1.1
"""Depth of the image plane, of the farthest vertex's."""
_CHUNK = 1024
"""Keys that are converted at a time."""


_ABSENT = 1e-3
"""Two millimetres: a scale of 0 has no inverse, and Blender then writes an FBX whose bodies are infinitely far away."""


@dataclass(frozen=True, eq=False)
class Skeleton:
    """What all bodies share. parents: index of each joint's parent, smaller than its own; -1 for the root, joint 0."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    weights: Float[np.ndarray, "v j"]
    """Skinning weights; each row sums to 1."""
    faces: Integer[np.ndarray, "f 3"]


@dataclass(frozen=True, eq=False)
class SkinnedBody:
    """A mesh in its bind pose and the pose of its skeleton."""

    name: str
    colour: tuple[float, float, float]
    """sRGB in [0, 1]."""
    vertices: Float[np.ndarray, "v 3"]
    """Bind pose, metres, y up: shape and pose correctives applied, not skinned."""
    normals: Float[np.ndarray, "v 3"]
    """Of the bind pose."""
    joints: Float[np.ndarray, "j 3"]
    """Bind pose, metres."""
    rotations: Float[np.ndarray, "j 3 3"]
    """Of each joint relative to its parent; of the root, bind pose to camera frame."""
    transl: Float[np.ndarray, "3"]
    """Metres, camera frame, added after skinning."""
    motion: "Motion | None" = None
    """Animates the body; rotations and transl are then those of the file's rest."""


@dataclass(frozen=True, eq=False)
class Motion:
    """A body over time; between two keys values change linearly (rotations along the arc)."""

    times: Float[np.ndarray, " t"]
    """Seconds, ascending."""
    rotations: Float[np.ndarray, "t j 3"]
    """Axis-angle, each relative to its parent; of the root, bind pose to camera frame."""
    transl: Float[np.ndarray, "t 3"]
    absent: Sequence[tuple[float, float]] = ()
    """Spans of time without the body, from and until, seconds; it is scaled by _ABSENT."""


@dataclass(frozen=True, eq=False)
class Camera:
    """K: pixels, integers are pixel centres. size: height, width."""

    K: Float[np.ndarray, "3 3"]
    size: tuple[int, int]


def glb_parts(
    skeleton: Skeleton,
    bodies: Sequence[SkinnedBody],
    camera: Camera,
    image: bytes | None = None,
    depth: float = 0.0,
    world: Float[np.ndarray, "3 4"] | None = None,
) -> list[bytes | bytearray]:
    """The file, in a few pieces. image: a JPEG of the camera's image for the plane. depth: metres, of the farthest
    vertex. world: the camera frame to a world with y up, metres; the node "world" above all others has it.

    Each body is a node at its pelvis (named as the body) above the joints of its skeleton, and a mesh node that the
    skeleton moves: move or turn the first.
    """
    file = _Scene()
    file.add_camera(camera)
    if image is not None:
        file.add_image(camera, image, _BEHIND * max(depth, 1.0))
    if bodies:
        file.add_bodies(skeleton, bodies)
    if world is not None:
        file.place_in(world)
    return file.parts()


def linear(srgb: Float[np.ndarray, "*n"]) -> Float[NDArray[np.float64], "*n"]:
    """Colours as glTF has them, from sRGB in [0, 1]."""
    return np.asarray(((srgb + 0.055) / 1.055) ** 2.4, np.float64)


class _Scene(Gltf):
    """A document of bodies, their camera and its image."""

    def add_camera(self, camera: Camera) -> None:
        """Add a camera. Its optical axis goes through the middle of the view, as glTF has it. Where K's principal point
        is more than a pixel off the image's middle, the view is the smallest one around it that holds the image."""
        fx, fy, half_width, half_height = _frustum(camera)
        lens = {
            "yfov": 2 * math.atan(half_height / fy),
            "aspectRatio": (half_width / fx) / (half_height / fy),
            "znear": _NEAR,
        }
        index = self.add("cameras", name="camera", type="perspective", perspective=lens)
        extras = {"K": np.asarray(camera.K, np.float64).tolist(), "image_size": list(camera.size)}
        self.roots.append(self.add("nodes", name="camera", camera=index, extras=extras))

    def add_image(self, camera: Camera, jpeg: bytes, depth: float) -> None:
        """A rectangle that fills the camera's image at this depth, unlit."""
        height, width = camera.size
        fx, fy, _, _ = _frustum(camera)
        left, right = ((x - camera.K[0, 2]) / fx * depth for x in (-0.5, width - 0.5))
        top, bottom = ((y - camera.K[1, 2]) / fy * depth for y in (-0.5, height - 0.5))
        corners = np.array([(left, top), (left, bottom), (right, bottom), (right, top)])
        points = np.column_stack([corners, np.full(4, depth)]) * TO_GLTF
        uv = np.array([(0, 0), (0, 1), (1, 1), (1, 0)], "<f4")
        source = self.add("images", name="image", mimeType="image/jpeg", bufferView=self.view(jpeg))
        sampler = self.add(
            "samplers", magFilter=9729, minFilter=9729, wrapS=33071, wrapT=33071
        )  # linear, clamped
        texture = self.add("textures", source=source, sampler=sampler)
        self.document["extensionsUsed"] = ["KHR_materials_unlit"]
        material = self.add(
            "materials",
            name="image",
            doubleSided=True,
            pbrMetallicRoughness={"baseColorTexture": {"index": texture}, "metallicFactor": 0.0},
            extensions={"KHR_materials_unlit": {}},
        )
        primitive = {
            "attributes": {
                "POSITION": self.accessor(points.astype("<f4"), VERTICES, bounds=True),
                "TEXCOORD_0": self.accessor(uv, VERTICES),
            },
            "indices": self.accessor(np.array([0, 1, 2, 0, 2, 3], "<u2"), INDICES),
            "material": material,
        }
        mesh = self.add("meshes", name="image", primitives=[primitive])
        self.roots.append(self.add("nodes", name="image", mesh=mesh))

    def place_in(self, world: Float[np.ndarray, "3 4"]) -> None:
        """Put all nodes but those of skinned meshes, whose transforms count for nothing, under one."""
        turn = Rotation.from_matrix(world[:, :3] * TO_GLTF).as_quat().tolist()
        inner = [node for node in self.roots if "skin" not in self.document["nodes"][node]]
        meshes = [node for node in self.roots if node not in inner]
        above = self.add(
            "nodes", name="world", rotation=turn, translation=world[:, 3].tolist(), children=inner
        )
        self.roots = [above, *meshes]

    def add_bodies(self, skeleton: Skeleton, bodies: Sequence[SkinnedBody]) -> None:
        kind = "<u2" if len(skeleton.weights) < 65535 else "<u4"
        indices = self.accessor(skeleton.faces.reshape(-1).astype(kind), INDICES)
        influences: dict[str, int] = {}
        for i, (joints, weights) in enumerate(_influences(skeleton.weights)):
            influences[f"JOINTS_{i}"] = self.accessor(joints, VERTICES)
            influences[f"WEIGHTS_{i}"] = self.accessor(weights, VERTICES)
        for body in bodies:
            material = self.add(
                "materials",
                name=body.name,
                pbrMetallicRoughness={
                    "baseColorFactor": [*linear(np.array(body.colour)).tolist(), 1.0],
                    "metallicFactor": 0.0,
                    "roughnessFactor": 0.7,
                },
            )
            primitive = {
                "attributes": {
                    "POSITION": self.accessor(body.vertices.astype("<f4"), VERTICES, bounds=True),
                    "NORMAL": self.accessor(_unit(body.normals), VERTICES),
                    **influences,
                },
                "indices": indices,
                "material": material,
            }
            mesh = self.add("meshes", name=body.name, primitives=[primitive])
            skin = self._add_skeleton(skeleton, body)
            # At the root: the transform of a skinned mesh's own node counts for nothing.
            self.roots.append(self.add("nodes", name=f"{body.name}_mesh", mesh=mesh, skin=skin))

    def _add_skeleton(self, skeleton: Skeleton, body: SkinnedBody) -> int:
        """The body's node, its joints below it, and the skin that is returned."""
        offsets = body.joints - body.joints[np.maximum(skeleton.parents, 0)]  # of the root: 0
        place, turns = _in_file(body, body.rotations[None], body.transl[None])
        place, turns = place[0], turns[0]
        first = len(self.document["nodes"]) + 1
        nodes = range(first, first + len(skeleton.names))
        self.roots.append(self.add("nodes", name=body.name, translation=place.tolist(), children=[first]))
        for joint, name in enumerate(skeleton.names):
            below = [nodes[k] for k, parent in enumerate(skeleton.parents) if parent == joint]
            children = {"children": below} if below else {}
            offset = {"translation": offsets[joint].tolist()} if joint else {}
            self.add("nodes", name=name, rotation=turns[joint].tolist(), **offset, **children)
        inverse = np.tile(np.eye(4, dtype="<f4"), (len(nodes), 1, 1))
        inverse[:, 3, :3] = -body.joints  # column-major: the translation is the last row
        bind = self.accessor(inverse.reshape(-1, 16))
        if body.motion is not None:
            self._add_motion(body, body.motion, first - 1, nodes)
        return self.add("skins", name=body.name, joints=[*nodes], skeleton=first, inverseBindMatrices=bind)

    def _add_motion(self, body: SkinnedBody, motion: Motion, node: int, joints: range) -> None:
        """Channels of the body's node and its joints, in the file's one animation."""
        count = len(motion.times)
        place, turns = np.empty((count, 3), "<f4"), np.empty((count, len(joints), 4), "<f4")
        for at in range(0, count, _CHUNK):
            part = slice(at, at + _CHUNK)
            matrices = Rotation.from_rotvec(motion.rotations[part].reshape(-1, 3)).as_matrix()
            place[part], own = _in_file(body, matrices.reshape(-1, len(joints), 3, 3), motion.transl[part])
            turns[part] = _same_side(own, turns[max(at - 1, 0)] if at else own[0])
        times = self.accessor(motion.times.astype("<f4"), bounds=True)
        moved = [(node, "translation", self.accessor(place))]
        moved += [(joint, "rotation", self.accessor(turns[:, i])) for i, joint in enumerate(joints)]
        self.channels(times, "LINEAR", moved)
        if motion.absent:
            keys = sorted(
                {
                    time: size
                    for span in motion.absent
                    for time, size in zip(span, (_ABSENT, 1.0), strict=True)
                }.items()
            )
            if keys[0][0] > 0:
                keys.insert(0, (0.0, 1.0))
            at = self.accessor(np.array([time for time, _ in keys], "<f4"), bounds=True)
            sizes = np.repeat(np.array([size for _, size in keys], "<f4")[:, None], 3, axis=1)
            self.channels(at, "STEP", [(node, "scale", self.accessor(sizes))])


def _in_file(
    body: SkinnedBody, rotations: Float[np.ndarray, "t j 3 3"], transl: Float[np.ndarray, "t 3"]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places of the pelvis (t, 3) and quaternions x y z w of the joints (t, j, 4), in the file's frame."""
    turned = np.asarray(rotations, np.float64).copy()
    turned[:, 0] = TO_GLTF[:, None] * turned[:, 0]
    place = (np.asarray(body.joints[0], np.float64) + transl) * TO_GLTF
    turns = Rotation.from_matrix(turned.reshape(-1, 3, 3)).as_quat()
    return place, turns.reshape(*turned.shape[:2], 4)


def _same_side(turns: Float[np.ndarray, "t j 4"], before: Float[np.ndarray, "j 4"]) -> NDArray[np.float64]:
    """Quaternions q or -q, each next to the one before it: a linear step is then along the shortest arc."""
    signs = np.sign((turns * np.concatenate([before[None], turns[:-1]])).sum(-1))
    return turns * np.cumprod(np.where(signs == 0, 1.0, signs), axis=0)[..., None].astype(np.float64)


def _frustum(camera: Camera) -> tuple[float, float, float, float]:
    """Focal lengths, and half the width and half the height of the view; pixels."""
    K = np.asarray(camera.K, np.float64)
    half: list[float] = []
    for length, centre in zip(camera.size[::-1], K[:2, 2] + 0.5, strict=True):  # from the image's corner
        off = abs(float(centre) - length / 2)
        half.append(length / 2 + (off if off > 1 else 0.0))
    return float(K[0, 0]), float(K[1, 1]), half[0], half[1]


def _influences(
    weights: Float[np.ndarray, "v j"],
) -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Joints and weights of each vertex, largest first, four to a set; as many sets as the largest vertex takes."""
    values = np.where(weights > 0, weights, 0).astype(np.float64)
    most = max(1, int((values > 0).sum(1).max(initial=1)))
    order = np.argsort(-values, axis=1, kind="stable")[:, : 4 * -(-most // 4)]
    order = np.pad(order, ((0, 0), (0, -order.shape[1] % 4)))
    chosen = np.take_along_axis(values, order, 1)
    chosen[:, most:] = 0
    chosen /= chosen.sum(1, keepdims=True)
    joints = np.where(chosen > 0, order, 0)  # the specification's: an influence of weight 0 names joint 0
    return [
        (joints[:, k : k + 4].astype("u1"), chosen[:, k : k + 4].astype("<f4"))
        for k in range(0, order.shape[1], 4)
    ]


def _unit(normals: Float[np.ndarray, "v 3"]) -> NDArray[np.float32]:
    """Unit length; upwards where there is none (a vertex that no triangle uses)."""
    values = np.asarray(normals, np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(length > 0.5, values / np.maximum(length, 1e-12), (0.0, 1.0, 0.0)).astype("<f4")
