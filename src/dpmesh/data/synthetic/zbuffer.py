"""A z-buffer to which meshes are added one by one, before all visible surfaces are drawn at once."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8, Int32
from numpy.typing import NDArray

from dpmesh.data.synthetic.primitives import Mesh, join
from dpmesh.render.rasterizer import Raster, rasterize
from dpmesh.render.typed import compiled

_F32 = np.float32
PERSON, OTHER, THING, LOOSE = 1, 2, 3, 4
"""Who owns a pixel; 0 is the background. LOOSE: what hangs on the person (accessories.py)."""

MOST_HIDDEN = (0.6, 0.85, 0.25)
"""What would hide more than a share of the person's own pixels is left out: 0.6, and 0.85 in a quarter of the images
(SynthOcc's hardest level hides some 80 % of the joints; behind more than that a detector finds no person)."""


class Canvas:
    """raster and owner of all that was added, front to back resolved; faces count through the meshes in order."""

    def __init__(self, K: Float64[NDArray[np.float64], "3 3"], size: int, most: float) -> None:
        """most: the share of the person that may be hidden."""
        self.K, self.size, self.most = K, size, most
        self.meshes: list[Mesh] = []
        self._faces = 0
        self.raster, self._scratch = (
            Raster(
                np.empty((size, size), _F32),
                np.empty((size, size), np.int32),
                np.empty((size, size, 3), _F32),
            )
            for _ in range(2)
        )
        self.raster.depth.fill(np.inf)
        self.raster.face.fill(-1)
        self.owner: Int8[NDArray[np.int8], "s s"] = np.zeros((size, size), np.int8)
        self._whole = 0

    def add(self, mesh: Mesh, kind: int, closed: bool = False, most: float = 1.0) -> bool:
        """Draw a mesh where it is the nearest, unless it hides too much of the person; returns whether it was drawn.
        Clothes and accessories of the person are always drawn.

        closed: the mesh is closed, as a body is; faces that point away are not drawn. most: share of the person that
        this mesh may hide, where that is less than the canvas allows.
        """
        if not len(mesh.faces) or (not closed and self.beyond(mesh.vertices)):
            return False
        if not self._whole or kind == LOOSE:
            rasterize(mesh.vertices, mesh.faces, self.K, self.owner.shape, closed, self.raster, self._faces)
            visible = _take(self.owner, self.raster.face, self._faces, kind)
            if kind == PERSON:
                self._whole = visible
        else:
            new = self._scratch
            new.depth.fill(np.inf)  # face and weights count only where there is a depth
            rasterize(mesh.vertices, mesh.faces, self.K, self.owner.shape, closed, new, self._faces)
            if self._too_much(*_covered(self.owner, self.raster.depth, new.depth), most):
                return False
            _merge(*self.raster, self.owner, *new, kind)
        self.meshes.append(mesh)
        self._faces += len(mesh.faces)
        return True

    def cover(self, mask: Bool[NDArray[np.bool_], "s s"]) -> bool:
        """A flat thing before everything else, unless it hides too much; its colour is the caller's business."""
        own = self.owner == PERSON
        if not mask.any() or self._too_much(int(np.count_nonzero(own)), int(np.count_nonzero(own & mask))):
            return False
        self.raster.depth[mask] = max(float(self.raster.depth.min()) - 0.1, 0.1)
        self.raster.face[mask] = -1
        self.owner[mask] = THING
        return True

    def mesh(self) -> Mesh:
        """Everything as one mesh, for the raster's faces."""
        return join(self.meshes)

    def visible_faces(self) -> tuple[Float32[NDArray[np.float32], "s s"], Int32[NDArray[np.int32], "s s"]]:
        """Copies of the present depth and face buffers."""
        return self.raster.depth.copy(), self.raster.face.copy()

    def _too_much(self, own: int, lost: int, most: float = 1.0) -> bool:
        """How many of the person's own pixels are visible so far, and how many of them would be covered."""
        return lost > most * self._whole or own - lost < (1 - self.most) * self._whole

    def beyond(self, points: Float32[NDArray[np.float32], "k 3"], margin: float = 0.0) -> bool:
        """Whether points (metres, camera frame) lie all beyond one side of the image, by more than the margin."""
        slope = 2 * float(self.K[0, 0]) / self.size
        return _beyond(points, slope, slope * margin)


@compiled
def _beyond(points: NDArray[np.float32], slope: float, margin: float) -> bool:
    """slope: of the image's sides, in the frame of the camera."""
    near = far = left = right = above = below = 0
    for p in range(points.shape[0]):
        x, y, z = points[p, 0] * slope, points[p, 1] * slope, points[p, 2]
        if z < 0.05:
            near += 1
        else:
            far += 1
        left += x + z < -margin
        right += x - z > margin
        above += y + z < -margin
        below += y - z > margin
    if near:
        return far == 0
    return far in (left, right, above, below)


@compiled
def _take(owner: NDArray[np.int8], face: NDArray[np.int32], first: int, kind: int) -> int:
    """Give the pixels of faces from `first` on to their owner; how many they are."""
    taken = 0
    for i in range(face.shape[0]):
        for j in range(face.shape[1]):
            if face[i, j] >= first:
                owner[i, j] = kind
                taken += 1
    return taken


@compiled
def _covered(
    owner: NDArray[np.int8], depth: NDArray[np.float32], new_depth: NDArray[np.float32]
) -> tuple[int, int]:
    """How many pixels are the person's, and before how many of those the new thing lies."""
    own, lost = 0, 0
    for i in range(depth.shape[0]):
        for j in range(depth.shape[1]):
            mine = owner[i, j] == PERSON
            own += mine
            lost += mine & (new_depth[i, j] < depth[i, j])
    return own, lost


@compiled
def _merge(
    depth: NDArray[np.float32], face: NDArray[np.int32], bary: NDArray[np.float32], owner: NDArray[np.int8],
    new_depth: NDArray[np.float32], new_face: NDArray[np.int32], new_bary: NDArray[np.float32], kind: int,
) -> None:  # fmt: skip
    for i in range(depth.shape[0]):
        for j in range(depth.shape[1]):
            if new_depth[i, j] < depth[i, j]:
                depth[i, j], face[i, j], owner[i, j] = new_depth[i, j], new_face[i, j], kind
                for k in range(3):
                    bary[i, j, k] = new_bary[i, j, k]
