"""The body, posed at the speed that data generation needs: float32 numpy and compiled loops, one core.

Equal to body.model.BodyModel (tests/data/test_synthetic.py). Two shortcuts, both exact: skinning goes over
the few non-zero weights of a vertex, and joints are computed without any vertex at all. A regressed joint is
sum_v R_kv sum_j w_vj T_j (shaped_v), which is linear in [1, betas, pose feature] for each pair (k, j), and
few pairs are not zero.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

import numpy as np
from jaxtyping import Float, Float32
from numpy.typing import NDArray

from dpmesh.body.files import BodyArrays
from dpmesh.data.synthetic.skinning import skinned
from dpmesh.render.typed import compiled
from dpmesh.skeletons import SMPL_PARENTS

_PARENTS = np.array(SMPL_PARENTS)
_F32 = np.float32
_NOWHERE = np.zeros(3, _F32)
Array32 = NDArray[np.float32]


class FastBody:
    """faces (f, 3) int32; template (v, 3) metres, rest pose; part (v,) the SMPL joint that
    moves a vertex most; rest_joints (24, 3) of the mean shape."""

    def __init__(self, arrays: BodyArrays, regressors: tuple[str, ...] = ("joints30", "coco17")) -> None:
        """regressors: names of body.files.REGRESSORS, the joints of `regress`."""
        self.template = np.ascontiguousarray(arrays.v_template, _F32)
        self.faces = np.ascontiguousarray(arrays.faces, np.int32)
        self.part = arrays.weights.argmax(1).astype(np.int32)
        v = len(self.template)
        self._shapedirs = np.ascontiguousarray(arrays.shapedirs.reshape(v * 3, -1).T, _F32)
        # Pose correctives by joint, without the vertices that the joint does not correct.
        by_joint = arrays.posedirs.reshape(v * 3, 23, 9)
        touched = [np.flatnonzero(by_joint[:, j].any(1)) for j in range(23)]
        self._corrected = np.concatenate(touched)
        self._ends = np.cumsum([len(rows) for rows in touched])
        blocks = [by_joint[rows, j].T for j, rows in enumerate(touched)]
        self._correctives = np.ascontiguousarray(np.concatenate(blocks, 1), _F32)

        most = int((arrays.weights > 0).sum(1).max())
        self._bones = np.argsort(-arrays.weights, axis=1, kind="stable")[:, :most].astype(np.int32)
        self._weights = np.ascontiguousarray(
            np.take_along_axis(arrays.weights, self._bones.astype(np.int64), 1), _F32
        )

        basis = np.concatenate([arrays.v_template[..., None], arrays.shapedirs, arrays.posedirs], 2).astype(
            np.float64
        )
        if not len(self._corrected):
            basis = basis[..., : 1 + arrays.shapedirs.shape[2]]
        rest = np.einsum("jv,vcd->jcd", arrays.J_regressor.astype(np.float64), basis[..., :11]).astype(_F32)
        self.rest_joints, self._rest_shape = (
            rest[..., 0],
            np.ascontiguousarray(rest[..., 1:].reshape(72, -1).T),
        )

        rows = np.concatenate([arrays.regressors[name] for name in regressors]).astype(np.float64)
        self._count = len(rows)
        outputs: list[int] = []
        bones: list[int] = []
        sums: list[float] = []
        formulas: list[NDArray[np.float64]] = []
        for j in range(24):
            weighted = rows * arrays.weights[:, j].astype(np.float64)
            touched = np.flatnonzero(weighted.any(0))
            formula = np.einsum("kv,vcd->kcd", weighted[:, touched], basis[touched])
            for k in np.flatnonzero(weighted.any(1)):
                outputs.append(int(k))
                bones.append(j)
                sums.append(float(weighted[k].sum()))
                formulas.append(formula[k])
        self._outputs, self._pair_bones = np.array(outputs), np.array(bones)
        self._sums = np.array(sums, _F32)
        self._formulas = np.ascontiguousarray(np.stack(formulas).reshape(len(formulas) * 3, -1), _F32)

    def transforms(
        self, betas: Float32[NDArray[np.float32], "n 10"], rotations: Float32[NDArray[np.float32], "n 24 3 3"]
    ) -> Float32[NDArray[np.float32], "n 24 3 4"]:
        """From the rest pose to the posed body, for every joint."""
        rest = self.rest(betas)
        out = np.empty((len(betas), 24, 3, 4), _F32)
        _chain(np.ascontiguousarray(rotations, _F32), np.ascontiguousarray(rest, _F32), _PARENTS, out)
        return out

    def rest(self, betas: Float32[NDArray[np.float32], "n 10"]) -> Float32[NDArray[np.float32], "n 24 3"]:
        """The 24 SMPL joints of shapes in the rest pose, metres."""
        return np.asarray(self.rest_joints + (betas @ self._rest_shape).reshape(-1, 24, 3), _F32)

    def joints(
        self, betas: Float32[NDArray[np.float32], "n 10"], rotations: Float32[NDArray[np.float32], "n 24 3 3"]
    ) -> tuple[Float32[NDArray[np.float32], "n 30 3"], Float32[NDArray[np.float32], "n 17 3"]]:
        """The 30-joint set and COCO's 17 joints of posed bodies, metres, transl 0."""
        out = self.regress(betas, rotations)
        return out[:, :30], out[:, 30:]

    def regress(
        self, betas: Float32[NDArray[np.float32], "n 10"], rotations: Float32[NDArray[np.float32], "n 24 3 3"]
    ) -> Float32[NDArray[np.float32], "n k 3"]:
        """The joints of all regressors, one after the other, of posed bodies, metres, transl 0."""
        terms = [np.ones((len(betas), 1), _F32), betas]
        if len(self._corrected):
            terms.append(_feature(rotations))
        points = (np.concatenate(terms, 1) @ self._formulas.T).reshape(len(betas), len(self._outputs), 3)
        out = np.zeros((len(betas), self._count, 3), _F32)
        _gather(points, self.transforms(betas, rotations), self._outputs, self._pair_bones, self._sums, out)
        return out

    def shaped(self, betas: Float32[NDArray[np.float32], "10"]) -> Float32[NDArray[np.float32], "v 3"]:
        """One body's rest-pose surface, before pose correctives."""
        return np.asarray(self.template + (betas @ self._shapedirs).reshape(-1, 3), _F32)

    def posed(
        self,
        betas: Float32[NDArray[np.float32], "10"],
        rotations: Float32[NDArray[np.float32], "24 3 3"],
    ) -> Float32[NDArray[np.float32], "v 3"]:
        """One body's vertices, metres, transl 0."""
        return self.pose(self.shaped(betas), rotations, self.transforms(betas[None], rotations[None])[0])

    def pose(
        self,
        rest: Float32[NDArray[np.float32], "v 3"],
        rotations: Float32[NDArray[np.float32], "24 3 3"],
        transforms: Float32[NDArray[np.float32], "24 3 4"],
        transl: Float32[NDArray[np.float32], "3"] = _NOWHERE,
    ) -> Float32[NDArray[np.float32], "v 3"]:
        """A rest-pose surface, shaped and perhaps clothed, posed by the transforms of its shape."""
        return self.skinned(self.corrected(rest, rotations), transforms, transl)

    def skinned(
        self,
        rest: Float32[NDArray[np.float32], "v 3"],
        transforms: Float32[NDArray[np.float32], "24 3 4"],
        transl: Float32[NDArray[np.float32], "3"],
    ) -> Float32[NDArray[np.float32], "v 3"]:
        """`pose` without the correctives."""
        return skinned(rest, transforms, transl, self._bones, self._weights)

    def corrected(
        self, rest: Float32[NDArray[np.float32], "v 3"], rotations: Float32[NDArray[np.float32], "24 3 3"]
    ) -> Float32[NDArray[np.float32], "v 3"]:
        """A rest-pose surface with what the pose adds to it before skinning."""
        flat = rest.reshape(-1).copy()
        feature = _feature(rotations[None]).reshape(23, 9)
        _correct(flat, self._corrected, self._ends, self._correctives, feature)
        return flat.reshape(-1, 3)


def matrices(rotvec: Float[NDArray[np.floating], "*b 3"]) -> Float32[NDArray[np.float32], "*b 3 3"]:
    """Axis-angle (radians) to rotation matrices: Rodrigues' formula, fine at angle 0."""
    flat = np.ascontiguousarray(rotvec, np.float64).reshape(-1, 3)
    out = np.empty((len(flat), 3, 3), _F32)
    _rodrigues(flat, out)
    return out.reshape(*rotvec.shape[:-1], 3, 3)


def rotvecs(rotations: Float32[NDArray[np.float32], "n 3 3"]) -> Float32[NDArray[np.float32], "n 3"]:
    """Rotation matrices to axis-angle (radians, at most pi), by the quaternion's largest component."""
    out = np.empty((len(rotations), 3), _F32)
    _logarithm(np.ascontiguousarray(rotations, np.float64), out)
    return out


def _feature(rotations: Float32[NDArray[np.float32], "n 24 3 3"]) -> Float32[NDArray[np.float32], "n 207"]:
    """SMPL's pose feature: R - I of joints 1 to 23, row-major."""
    return (rotations[:, 1:] - np.eye(3, dtype=_F32)).reshape(len(rotations), 207)


@compiled
def _rodrigues(rotvec: NDArray[np.float64], out: Array32) -> None:
    for i in range(rotvec.shape[0]):
        a, b, c = rotvec[i, 0], rotvec[i, 1], rotvec[i, 2]
        angle = np.sqrt(a * a + b * b + c * c)
        size = 1 / max(angle, 1e-12)
        x, y, z = a * size, b * size, c * size
        s, c = np.sin(angle), np.cos(angle)
        d = 1 - c
        out[i, 0, 0], out[i, 0, 1], out[i, 0, 2] = c + x * x * d, x * y * d - z * s, x * z * d + y * s
        out[i, 1, 0], out[i, 1, 1], out[i, 1, 2] = y * x * d + z * s, c + y * y * d, y * z * d - x * s
        out[i, 2, 0], out[i, 2, 1], out[i, 2, 2] = z * x * d - y * s, z * y * d + x * s, c + z * z * d


@compiled
def _logarithm(rotations: NDArray[np.float64], out: Array32) -> None:
    q = np.empty(4)
    for i in range(rotations.shape[0]):
        r = rotations[i]
        trace = r[0, 0] + r[1, 1] + r[2, 2]
        most, largest = 3, trace
        for k in range(3):
            if r[k, k] > largest:
                most, largest = k, r[k, k]
        if most == 3:
            q[3] = 1 + trace
            for k in range(3):
                a, b = (k + 1) % 3, (k + 2) % 3
                q[k] = r[b, a] - r[a, b]
        else:
            a, b = (most + 1) % 3, (most + 2) % 3
            q[most] = 1 - trace + 2 * r[most, most]
            q[a], q[b] = r[a, most] + r[most, a], r[b, most] + r[most, b]
            q[3] = r[b, a] - r[a, b]
        if q[3] < 0:
            q *= -1
        size = np.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2])
        factor = 2 * np.arctan2(size, q[3]) / size if size > 1e-12 else 0.0
        for k in range(3):
            out[i, k] = factor * q[k]


@compiled
def _chain(rotations: Array32, rest: Array32, parents: NDArray[np.int64], out: Array32) -> None:
    turn, place = np.empty((24, 3, 3), np.float32), np.empty((24, 3), np.float32)
    for i in range(rotations.shape[0]):
        for j in range(24):
            p = parents[j]
            for r in range(3):
                if p < 0:
                    turn[j, r] = rotations[i, j, r]
                    place[j, r] = rest[i, j, r]
                    continue
                place[j, r] = place[p, r]
                for k in range(3):
                    place[j, r] += turn[p, r, k] * (rest[i, j, k] - rest[i, p, k])
                    turn[j, r, k] = 0.0
                    for m in range(3):
                        turn[j, r, k] += turn[p, r, m] * rotations[i, j, m, k]
            for r in range(3):
                shift = place[j, r]
                for k in range(3):
                    shift -= turn[j, r, k] * rest[i, j, k]
                    out[i, j, r, k] = turn[j, r, k]
                out[i, j, r, 3] = shift


@compiled
def _gather(
    points: Array32,
    transforms: Array32,
    outputs: NDArray[np.int64],
    bones: NDArray[np.int64],
    sums: Array32,
    out: Array32,
) -> None:
    for i in range(points.shape[0]):
        for p in range(points.shape[1]):
            t = transforms[i, bones[p]]
            for r in range(3):
                value = t[r, 3] * sums[p]
                for k in range(3):
                    value += t[r, k] * points[i, p, k]
                out[i, outputs[p], r] += value


@compiled
def _correct(
    flat: Array32, rows: NDArray[np.int64], ends: NDArray[np.int64], correctives: Array32, feature: Array32
) -> None:
    moved, start = np.zeros(len(rows), np.float32), 0
    for joint in range(len(ends)):
        own = moved[start : ends[joint]]
        for k in range(9):
            turned, along = feature[joint, k], correctives[k, start : ends[joint]]
            for n in range(len(own)):
                own[n] += along[n] * turned
        start = ends[joint]
    for n in range(len(rows)):
        flat[rows[n]] += moved[n]
