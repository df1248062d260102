"""Arrays in the layout of the user's body files, with numbers of our own."""

import numpy as np

from dpmesh.skeletons import SMPL_PARENTS

V = 6890
Arrays = dict[str, np.ndarray]


def flat_smpl() -> Arrays:
    """SMPL's field names and shapes, with numbers of our own."""
    rng = np.random.default_rng(0)
    rows = np.zeros((24, V), np.float32)
    rows[np.arange(24), np.arange(24) * 280] = 1
    return {
        "v_template": rng.normal(size=(V, 3)).astype(np.float32),
        "shapedirs": np.zeros((V, 3, 10), np.float32),
        "posedirs": np.zeros((V, 3, 207), np.float32),
        "J_regressor": rows,
        "weights": np.eye(24, dtype=np.float32)[np.arange(V) % 24],
        "kintree_table": np.array([(2**32 - 1, *SMPL_PARENTS[1:]), range(24)], np.uint32),
        "f": np.arange(13776 * 3).reshape(-1, 3) % V,
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
