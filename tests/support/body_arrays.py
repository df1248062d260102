"""Arrays in the layout of the user's body files, with numbers of our own."""

import numpy as np

from dpmesh.skeletons import SMPL_PARENTS

V = 6890
Arrays = dict[str, np.ndarray]


def ellipsoid() -> tuple[np.ndarray, np.ndarray]:
    """Vertices (metres) and faces of a closed mesh with as many of them as SMPL's, 1.7 m high."""
    rings, around = 82, 84
    down, round_ = np.meshgrid(
        np.linspace(0, np.pi, rings + 2)[1:-1], np.arange(around) * 2 * np.pi / around, indexing="ij"
    )
    wall = np.stack([np.sin(down) * np.cos(round_), np.cos(down), np.sin(down) * np.sin(round_)], -1)
    vertices = np.concatenate([[[0, 1, 0]], wall.reshape(-1, 3), [[0, -1, 0]]]) * (0.5, 0.85, 0.2)
    at = np.arange(rings * around).reshape(rings, around) + 1
    a, b, c, d = at[:-1], np.roll(at, -1, 1)[:-1], at[1:], np.roll(at, -1, 1)[1:]
    top, bottom = np.zeros(around, int), np.full(around, V - 1)
    parts = ((a, b, c), (b, d, c), (top, np.roll(at[0], -1), at[0]), (bottom, at[-1], np.roll(at[-1], -1)))
    return vertices, np.concatenate([np.stack(part, -1).reshape(-1, 3) for part in parts])


def flat_smpl() -> Arrays:
    """SMPL's field names and shapes, with numbers of our own."""
    vertices, faces = ellipsoid()
    rows = np.zeros((24, V), np.float32)
    rows[np.arange(24), np.arange(24) * 280] = 1
    return {
        "v_template": vertices.astype(np.float32),
        "shapedirs": np.zeros((V, 3, 10), np.float32),
        "posedirs": np.zeros((V, 3, 207), np.float32),
        "J_regressor": rows,
        "weights": np.eye(24, dtype=np.float32)[np.arange(V) % 24],
        "kintree_table": np.array([(2**32 - 1, *SMPL_PARENTS[1:]), range(24)], np.uint32),
        "f": faces,
    }


def regressor(rows: int, first: int = 4000, hot: bool = False) -> np.ndarray:
    """One vertex for each row: rows 1-3 from `first` on, rows 4-6 on the other side."""
    array = np.zeros((rows, V))
    sides = [20, *(first + i for i in range(3)), *((first + 3445) % V + i for i in range(3))]
    vertices = (sides + list(range(100, 200)))[:rows]
    array[np.arange(rows), vertices] = 1
    if hot:
        array[:5] = 0
        array[np.arange(5), (331, 2802, 6262, 3489, 3990)] = 1
    return array
