"""The 3D scene of the viewer: bodies, skeletons, keypoints, camera and floor of one result, drawn through viser.

The frame is the camera's (x right, y down, z forward), so that the camera of the image is at the origin.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dpmesh.geometry.floor import LEVEL, Floor
from dpmesh.render.sigma import sigma_colours, surface_sigma
from dpmesh.skeletons import JOINTS30, SMPL24
from dpmesh.viewer.meshes import ball, coloured_mesh
from dpmesh.viewer.results import ShownPerson, ShownResult

if TYPE_CHECKING:
    import viser

_BALL = 0.018
"""Metres: radius of a joint's ball."""
_REACH = 0.012
"""By how much a click may miss a joint, of the distance: about 12 pixels."""
_IMAGE_LONGEST = 1280
_FRUSTUM = 0.3
"""Metres from the camera to the rectangle that stands for it."""
_GLASS = 0.5
"""Opacity of a body whose skeleton is shown."""
_FAINT = 0.25
"""Opacity of other hypotheses than the first."""
_BEHIND = 1.15
"""Depth of the image, of the farthest person's."""


@dataclass
class Shown:
    """What is drawn; the viewer's switches change it."""

    bodies: bool = True
    skeleton: bool = False
    keypoints: bool = False
    image: bool = True
    floor: bool = False
    hypotheses: bool = True
    sigma: bool = False
    opacity: float = 1.0


@dataclass(eq=False)
class _Drawn:
    """Handles of a person. row: the last that was drawn."""

    person: ShownPerson
    colour: tuple[float, float, float]
    visible: bool = True
    row: int | None = None
    mesh: Any = None
    mesh_key: tuple[Any, ...] = ()
    coloured: Any = None
    """The surface coloured by sigma, in place of the skinned mesh."""
    coloured_key: tuple[Any, ...] = ()
    balls: Any = None
    lines: Any = None


class Stage:
    """One result in viser's scene, below a prefix of its names."""

    def __init__(
        self,
        server: "viser.ViserServer",
        result: ShownResult,
        prefix: str = "",
    ) -> None:
        self.server, self.result, self.prefix = server, result, prefix
        self.shown, self.frame = Shown(), 0
        self.faces = result.body.faces.cpu().numpy().astype(np.int32)
        self.weights = result.body.skinning_weights.cpu().numpy()
        self.people = {person.name: _Drawn(person, person.colour) for person in result.people}
        self.picked: list[tuple[str, int]] = []
        self._image_frame: int | None = None
        self._plane: Any = None
        self._frustum: Any = None
        self._points: Any = None
        self._floor: Any = None
        self._ball = ball(_BALL)
        self._add_floor()

    def draw(self) -> None:
        """Draw the frame as `shown` says. Only what has changed is sent to the browser."""
        with self.server.atomic():
            for drawn in self.people.values():
                self._draw_person(drawn)
            self._draw_camera()
            self._draw_keypoints()
            if self._floor is not None:
                self._floor.visible = self.shown.floor

    def joint(self, name: str, joint: int) -> Float[np.ndarray, "3"] | None:
        """Place of a joint of a person in this frame, camera frame; None where the person is not in it."""
        row = self.result.row(self.people[name].person, self.frame)
        return None if row is None else self.result.joints3d[row, joint].astype(np.float64)

    def joint_at(self, origin: Float[np.ndarray, "3"], ray: Float[np.ndarray, "3"]) -> tuple[str, int] | None:
        """Person and joint whose ball a ray goes through, or nearly; None without one or without a skeleton. viser's
        own clicks on balls are lost until the camera has been dragged."""
        nearest, found = np.inf, None
        ray = ray / np.linalg.norm(ray)
        for name, drawn in self.people.items() if self.shown.skeleton else ():
            row = self.result.row(drawn.person, self.frame) if drawn.visible and not drawn.person.of else None
            if row is None:
                continue
            there = self.result.joints3d[row] - origin
            along = np.maximum(there @ ray, 1e-6)
            off = np.linalg.norm(there - along[:, None] * ray, axis=1)
            off[off > np.maximum(_BALL, _REACH * along)] = np.inf
            joint = int((off / along).argmin())
            if off[joint] / along[joint] < nearest:
                nearest, found = off[joint] / along[joint], (name, joint)
        return found

    def hide(self) -> None:
        """Show nothing of it. Its nodes stay, since viser's page fails where a skinned mesh is removed; those of the
        same name in a later stage take their places."""
        handles = [self._plane, self._frustum, self._points, self._floor]
        for drawn in self.people.values():
            handles += [drawn.mesh, drawn.coloured, drawn.balls, drawn.lines]
        for handle in handles:
            if handle is not None:
                handle.visible = False

    def _draw_person(self, drawn: _Drawn) -> None:
        shown, scene, other = self.shown, self.server.scene, drawn.person.of
        if other:
            drawn.visible, drawn.colour = (
                self.people[other].visible and shown.hypotheses,
                self.people[other].colour,
            )
        row = self.result.row(drawn.person, self.frame) if drawn.visible else None
        by_sigma = (
            row is not None
            and shown.sigma
            and not other
            and bool(np.isfinite(self.result.joint_sigma[row]).all())
        )
        if row is not None and shown.bodies and by_sigma:
            self._draw_coloured(drawn, row)
        elif row is not None and shown.bodies:
            self._draw_mesh(drawn, row)
        if drawn.mesh is not None and (by_sigma or row is None or not shown.bodies):
            drawn.mesh.visible = False
        if drawn.coloured is not None and not (by_sigma and shown.bodies):
            drawn.coloured.visible = False
        if row is None or not shown.skeleton or other:
            for handle in (drawn.balls, drawn.lines):
                if handle is not None:
                    handle.visible = False
            return
        joints = self.result.joints3d[row].astype(np.float32)
        colours = self._joint_colours(drawn, row)
        segments = joints[np.array([*SMPL24.limbs, *_HEAD])]
        if drawn.balls is None:
            path = f"{self.prefix}/{drawn.person.name}"
            vertices, faces = self._ball
            drawn.balls = scene.add_batched_meshes_simple(
                f"{path}/joints", vertices, faces, np.tile([1.0, 0, 0, 0], (len(joints), 1)), joints,
                batched_colors=colours, cast_shadow=False, receive_shadow=False,
            )  # fmt: skip
            drawn.lines = scene.add_line_segments(f"{path}/bones", segments, (255, 255, 255))
        else:
            drawn.balls.batched_positions, drawn.balls.batched_colors = joints, colours
            drawn.lines.points = segments
        drawn.balls.visible = drawn.lines.visible = True

    def _joint_colours(self, drawn: _Drawn, row: int) -> NDArray[np.uint8]:
        sigma = self.result.joint_sigma[row]
        known = bool(np.isfinite(sigma).all())
        colours = sigma_colours(sigma) if self.shown.sigma and known else np.full((len(sigma), 3), 0.92)
        colours = np.rint(255 * np.asarray(colours)).astype(np.uint8)
        for name, joint in self.picked:
            if name == drawn.person.name:
                colours[joint] = (255, 210, 60)
        return colours

    @property
    def _opacity(self) -> float:
        """Joints lie inside the body, which lets them through where they are shown."""
        return min(self.shown.opacity, _GLASS if self.shown.skeleton else 1.0)

    def _draw_mesh(self, drawn: _Drawn, row: int) -> None:
        """The skinned mesh is sent once; afterwards its bones move."""
        still = len(self.result.times) == 1
        opacity = self._opacity * (_FAINT if drawn.person.of else 1.0)
        colouring: tuple[Any, ...] = (
            drawn.colour,
            opacity,
            row if still else -1,
        )
        turns, places = self.result.bones(row)
        quaternions = Rotation.from_matrix(turns).as_quat()[:, [3, 0, 1, 2]]
        if drawn.mesh is None or drawn.mesh_key != colouring:
            vertices, rest = self.result.bind_pose(row)
            drawn.mesh = self.server.scene.add_mesh_skinned(
                f"{self.prefix}/{drawn.person.name}/body", vertices, self.faces,
                bone_wxyzs=np.tile([1.0, 0, 0, 0], (len(rest), 1)), bone_positions=rest, skin_weights=self.weights,
                color=drawn.colour, opacity=opacity if opacity < 1 else None,
            )  # fmt: skip
            drawn.mesh_key, drawn.row = colouring, None
        if drawn.row != row:
            for bone, wxyz, place in zip(drawn.mesh.bones, quaternions, places, strict=True):
                bone.wxyz, bone.position = wxyz, place
            drawn.row = row
        drawn.mesh.visible = True

    def _draw_coloured(self, drawn: _Drawn, row: int) -> None:
        """viser's skinned meshes have one colour, so the posed surface is sent, once a frame."""
        if drawn.coloured is None or drawn.coloured_key != (row, self._opacity):
            vertices = self.result.posed(row)
            sigma = surface_sigma(vertices, self.result.joints3d[row], self.result.joint_sigma[row])
            mesh = coloured_mesh(vertices, self.faces, sigma_colours(sigma), self._opacity)
            path = f"{self.prefix}/{drawn.person.name}/sigma"
            drawn.coloured = self.server.scene.add_mesh_trimesh(path, mesh)
            drawn.coloured_key = row, self._opacity
        drawn.coloured.visible = True

    def _draw_camera(self) -> None:
        """The frustum, and the image on a plane behind the people: from the camera's place it fills the view."""
        if self.prefix:
            return
        scene, (height, width) = self.server.scene, self.result.image_size
        if self._frustum is None:
            corners = np.array(
                [(-0.5, -0.5), (width - 0.5, -0.5), (width - 0.5, height - 0.5), (-0.5, height - 0.5)]
            )
            rays = (
                np.column_stack([corners, np.ones(4)])
                @ np.linalg.inv(np.asarray(self.result.K, np.float64)).T
            )
            edges = np.stack([rays, np.roll(rays, -1, axis=0)], axis=1) * _FRUSTUM
            sides = np.stack([np.zeros_like(rays), rays * _FRUSTUM], axis=1)
            segments = np.concatenate([edges, sides]).astype(np.float32)
            self._frustum = scene.add_line_segments("/camera", segments, (120, 130, 145), thickness=0.0005)
        if not self.shown.image:
            if self._plane is not None:
                self._plane.visible = False
            return
        if self._image_frame != self.frame and (
            self._image_frame is None or self.result.images.still is None
        ):
            image = self.result.images.of(self.frame)
            self._image_frame = self.frame
            if image is not None:
                self._put_image(image)
        if self._plane is not None:
            self._plane.visible = True

    def _put_image(self, image: NDArray[np.uint8]) -> None:
        (height, width), K = self.result.image_size, self.result.K
        zoom = min(1.0, _IMAGE_LONGEST / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        joints = self.result.own_joints
        depth = _BEHIND * max(1.0, float(np.percentile(joints[..., 2], 99)) if joints.size else 1.0)
        if self._plane is not None:
            self._plane.image = small
            return
        corner = (np.array([width, height]) / 2 - 0.5 - K[:2, 2]) / np.diag(K)[:2]
        centre = np.append(corner, 1.0) * depth
        self._plane = self.server.scene.add_image(
            "/image", small, width / K[0, 0] * depth, height / K[1, 1] * depth, position=centre,
            cast_shadow=False, receive_shadow=False,
        )  # fmt: skip

    def _draw_keypoints(self) -> None:
        """The 2D keypoints on the rays of their pixels, at the depth of their joint."""
        if self._points is not None and not self.shown.keypoints:
            self._points.visible = False
        if not self.shown.keypoints:
            return
        points: list[NDArray[np.float64]] = []
        colours: list[tuple[float, ...]] = []
        inverse = np.linalg.inv(np.asarray(self.result.K, np.float64))
        for drawn in self.people.values():
            row = self.result.row(drawn.person, self.frame) if drawn.visible else None
            if row is None or drawn.person.of:
                continue
            given = self.result.keypoints2d[row]
            depth = float(self.result.joints3d[row, :, 2].min()) - 0.05
            rays = np.concatenate([given[:, :2], np.ones((17, 1))], 1) @ inverse.T
            seen = given[:, 2] > 0
            points.extend(rays[seen] * depth)
            colours.extend([drawn.colour] * int(seen.sum()))
        if self._points is not None:
            self._points.remove()
            self._points = None
        if points:
            self._points = self.server.scene.add_point_cloud(
                f"{self.prefix}/keypoints", np.array(points, np.float32), np.array(colours, np.float32),
                point_size=0.02, point_shape="circle",
            )  # fmt: skip

    def _add_floor(self) -> None:
        if self.prefix or not len(self.result.own_joints):
            return
        joints, floor = self.result.own_joints, self.result.floor
        if floor is None:  # level, below the lowest joint
            floor = Floor(LEVEL, 0.05 - float((joints @ LEVEL).min()))
        up, height = floor.up, floor.height
        self.server.scene.set_up_direction(up)
        middle = np.median(joints.reshape(-1, 3), axis=0)
        place = middle - (middle @ up + height) * up
        turn = Rotation.align_vectors(up[None], np.array([[0.0, 0.0, 1.0]]))[0]
        self._floor = self.server.scene.add_grid(
            "/floor", 12.0, 12.0, cell_size=0.5, section_size=1.0, position=place,
            wxyz=turn.as_quat()[[3, 0, 1, 2]], visible=False,
        )  # fmt: skip


_HEAD = tuple((JOINTS30.index("Head"), JOINTS30.index(name)) for name in ("Nose", "Head_top"))
