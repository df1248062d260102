"""Results of clips on the frames in which every one of them has a person.

A method that misses people when they are hard to see has lower errors over its own frames: only common ones compare.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from dpmesh.evaluate.results import FRAME_COLUMNS

IN_SIGHT = 0.7
"""Share of the main joints that are not hidden, of a person in sight."""
MEASURES = ("MPJPE", "PA-MPJPE", "acceleration", "foot slide", "foot slide, in sight")
_FEET = [i for i, name in enumerate(FRAME_COLUMNS) if name.startswith("slide")]


def on_common_frames(
    results: Sequence[Float[np.ndarray, "n t c"]],
) -> list[dict[str, Float[np.ndarray, " n"]]]:
    """For each result its measures for each person: the columns' means over the common frames, and the 90th percentile
    of how far a foot moves while it stands. NaN where there is no such frame.

    results: Rows.frames of the same people in the same order.
    """
    frames = np.stack(results)
    common = np.logical_and.reduce(np.isfinite(frames[..., FRAME_COLUMNS.index("mpjpe")]), axis=0)
    whole = np.logical_and.reduce(np.isfinite(frames), axis=0)
    frames = np.where(whole & common[..., None], frames, np.nan)
    seen = frames[..., FRAME_COLUMNS.index("shown")] >= IN_SIGHT
    out: list[dict[str, Float[np.ndarray, " n"]]] = []
    for one, sight in zip(frames, seen, strict=True):
        figures = {
            name: _over(one[..., [FRAME_COLUMNS.index(column)]], _mean)
            for name, column in zip(MEASURES, ("mpjpe", "pa_mpjpe", "acceleration"), strict=False)
        }
        feet = one[..., _FEET]
        figures[MEASURES[3]] = _over(feet, _ninth)
        figures[MEASURES[4]] = _over(np.where(sight[..., None], feet, np.nan), _ninth)
        out.append(figures)
    return out


def _mean(values: Float[np.ndarray, " k"]) -> float:
    return float(values.mean())


def _ninth(values: Float[np.ndarray, " k"]) -> float:
    return float(np.quantile(values, 0.9))


def _over(
    values: Float[np.ndarray, "n t k"], figure: Callable[[Float[np.ndarray, " k"]], float]
) -> Float[np.ndarray, " n"]:
    """Of each person's finite values."""
    finite = [one[np.isfinite(one)] for one in values]
    return np.array([figure(one) if len(one) else np.nan for one in finite])
