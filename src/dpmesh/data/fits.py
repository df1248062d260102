"""Fitted bodies: the joints of a fit's mesh, in the camera frame, from the body that the fit was made for."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (numpy's own stubs leave clip, reshape, T and the like partly unknown)

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation  # pyright: ignore[reportMissingTypeStubs]

from dpmesh.assets import find_asset, require_asset
from dpmesh.body.files import BodyArrays, load_body
from dpmesh.data.annotation import Annotation, Array32
from dpmesh.data.synthetic.body import FastBody, matrices
from dpmesh.errors import InputError
from dpmesh.skeletons import H36M17, JOINTS30, SMPL24, Skeleton

SMPL_VERTICES = 6890
MOST_APART = 0.025
"""Metres: a fit whose joints lie farther from the measured ones on average is not used (3DCrowdNet, JOTR)."""

_UNKNOWN = ("Ankle", "Toe", "Wrist", "Hand")
POSE_KNOWN = np.array([not joint.endswith(_UNKNOWN) for joint in SMPL24.joints], np.float32)
"""Rows of a fit's pose that a keypoint fit determines: not ankles, toes, wrists and hands (fit_param_valid)."""

_F32 = np.float32


class FitBodies:
    """The neutral body, and the gendered ones that were imported."""

    def __init__(
        self,
        neutral: BodyArrays,
        male: BodyArrays | None = None,
        female: BodyArrays | None = None,
        *,
        foreign: bool = False,
    ) -> None:
        """foreign: take another body than SMPL, as tests do whose fits were made for it. Raises InputError."""
        bodies = {"neutral": neutral, "male": male, "female": female}
        self._bodies: dict[str, FastBody] = {}
        for gender, arrays in bodies.items():
            if arrays is None:
                continue
            if len(arrays.v_template) != SMPL_VERTICES and not foreign:
                raise InputError(
                    f"the fits of the data sets are for SMPL; on a body of {len(arrays.v_template)} vertices"
                    " they mean other joints",
                    fix="Import SMPL (dpmesh assets import FILE), or train on joints alone (fits = 'none').",
                )
            self._bodies[gender] = FastBody(
                arrays, tuple(n for n in ("joints30", "h36m17") if n in arrays.regressors)
            )
        self.can_check = "h36m17" in neutral.regressors

    @classmethod
    def imported(cls) -> "FitBodies":
        """The user's SMPL files; raises AssetError where the neutral one or the H36M regressor is missing."""
        h36m, extra = require_asset("h36m_regressor"), find_asset("extra_regressor")
        paths = {"male": find_asset("smpl_male"), "female": find_asset("smpl_female")}
        bodies = {
            gender: None if path is None else load_body(path, h36m=h36m, extra=extra)
            for gender, path in paths.items()
        }
        neutral = load_body(require_asset("smpl_neutral"), h36m=h36m, extra=extra)
        return cls(neutral, bodies["male"], bodies["female"])

    def has(self, gender: str) -> bool:
        return gender in self._bodies

    def rest_root(self, betas: Float[NDArray[np.floating], "10"], gender: str = "neutral") -> Array32:
        """The pelvis joint (3,) of a shape in the rest pose, metres: what the root rotation turns about."""
        return self._bodies[gender].rest(np.asarray(betas, _F32)[None])[0, 0]

    def attach(
        self,
        person: Annotation,
        pose: Float[NDArray[np.floating], "24 3"],
        betas: Float[NDArray[np.floating], "10"],
        transl: Float[NDArray[np.floating], "3"],
        *,
        gender: str = "neutral",
        check: Skeleton | None = None,
    ) -> Annotation:
        """The person with a fit, all in the camera frame; its joints are regressor × posed mesh.

        check: drop the fit where the joints that this set shares with H36M's lie more than MOST_APART from
        the measured ones on average, both taken about their means. Raises InputError without that regressor.
        """
        pose, betas = np.asarray(pose, _F32), np.asarray(betas, _F32)
        rows = self._bodies[gender].regress(betas[None], matrices(pose)[None])[0] + np.asarray(transl, _F32)
        if check is not None and _apart(person, rows[30:], check) > MOST_APART:
            return person
        return replace(
            person,
            pose=pose, pose_valid=POSE_KNOWN, betas=betas, betas_valid=float(gender == "neutral"),
            transl=np.asarray(transl, _F32), rest_root=self.rest_root(betas, gender),
            fit_joints3d=rows[:30], fit_valid=1.0,
        )  # fmt: skip


def _apart(person: Annotation, fitted: Array32, shared: Skeleton) -> float:
    """Mean distance in metres between measured and fitted joints, both about their means."""
    if not len(fitted):
        raise InputError(
            "this body has no H36M regressor, by which fits are checked",
            fix="dpmesh assets import J_regressor_h36m_correct.npy",
        )
    names = [j for j in H36M17.joints if j in shared.joints and person.joints3d_valid[JOINTS30.index(j)]]
    measured = person.joints3d[[JOINTS30.index(j) for j in names]]
    estimated = fitted[[H36M17.index(j) for j in names]]
    off = (measured - measured.mean(0)) - (estimated - estimated.mean(0))
    return float(np.linalg.norm(off, axis=1).mean())


def turned(
    rotation: Float[NDArray[np.floating], "3 3"], pose: Float[NDArray[np.floating], "24 3"]
) -> Array32:
    """The pose with `rotation` put before its root: from the world to the camera, say."""
    out = np.array(pose, _F32)
    out[0] = Rotation.from_matrix(np.asarray(rotation, np.float64) @ matrices(pose[0])).as_rotvec()
    return out


def moved(
    rotation: Float[NDArray[np.floating], "3 3"],
    shift: Float[NDArray[np.floating], "3"],
    transl: Float[NDArray[np.floating], "3"],
    rest_root: Float[NDArray[np.floating], "3"],
) -> Array32:
    """transl after the frame changes by x' = rotation x + shift, the root being `turned`.

    The root turns about the pelvis joint J, not about the origin: J + t' = R (J + t) + shift.
    """
    return np.asarray(rotation @ (rest_root + transl) + shift - rest_root, _F32)
