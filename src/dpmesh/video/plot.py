"""tracks.png: who is visible when, how high each head is, and how fast each person moves. Needs matplotlib."""

import io
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from dpmesh.errors import AssetError
from dpmesh.render.overlay import palette
from dpmesh.skeletons import JOINTS30
from dpmesh.video.tracks import Tracks

_SPEED = 0.3
"""Seconds over which speed is taken."""
_TOP, _ANKLES = JOINTS30.index("Head_top"), [JOINTS30.index("L_Ankle"), JOINTS30.index("R_Ankle")]


def require_matplotlib() -> None:
    """Raise AssetError if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise AssetError(
            "the plot of the tracks needs matplotlib", fix="pip install 'dpmesh[plot]'"
        ) from error


def heights(tracks: Tracks, own: NDArray[np.int64]) -> Float[np.ndarray, " t"]:
    """Of the top of the head, metres: above the floor where it is known, else above the lower ankle."""
    if tracks.ground is not None:
        return np.asarray(tracks.ground.heights(tracks.joints3d[own, _TOP]))
    return tracks.joints3d[own][:, _ANKLES, 1].max(1) - tracks.joints3d[own, _TOP, 1]


def speeds(tracks: Tracks, own: NDArray[np.int64]) -> Float[np.ndarray, " t"]:
    """Of the pelvis, metres a second, over _SPEED seconds about each row; NaN for a single row."""
    time, pelvis = tracks.time[own], tracks.joints3d[own, 0]
    low = np.searchsorted(time, time - _SPEED / 2, side="left")
    high = np.searchsorted(time, time + _SPEED / 2, side="right") - 1
    low, high = (
        np.where(low == high, np.maximum(low - 1, 0), low),
        np.maximum(high, np.minimum(1, len(own) - 1)),
    )
    passed = time[high] - time[low]
    moved = np.linalg.norm(pelvis[high] - pelvis[low], axis=1)
    return np.where(passed > 0, moved / np.where(passed > 0, passed, 1.0), np.nan)


def plot_png(tracks: Tracks) -> bytes:
    """Three plots over time, a colour for each track as in the overlay. Raises AssetError without matplotlib."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5 + 0.25 * len(tracks)), layout="constrained")
    FigureCanvasAgg(figure)
    shown: Any = figure.subplots(3, 1, sharex=True, height_ratios=[1 + 0.25 * len(tracks), 2, 2])
    for line, (number, colour) in enumerate(zip(tracks.numbers, palette(len(tracks)), strict=True)):
        own = tracks.of(int(number))
        time, filled = tracks.time[own], tracks.interpolated[own]
        shown[0].scatter(time[~filled], np.full((~filled).sum(), line), 12, [colour], marker="|")
        shown[0].scatter(time[filled], np.full(filled.sum(), line), 3, [(0.6, 0.6, 0.6)])
        steps = np.diff(tracks.frame[own], prepend=tracks.frame[own[0]])
        gap = steps > 1.5 * max(1.0, float(np.median(steps)))
        for axes, values in ((shown[1], heights(tracks, own)), (shown[2], speeds(tracks, own))):
            axes.plot(time, np.where(gap, np.nan, values), color=colour)
    shown[0].set_yticks(range(len(tracks)), [f"person {n}" for n in tracks.numbers])
    shown[0].set_ylim(-0.6, max(len(tracks), 1) - 0.4)
    shown[0].set_title("detected (colour), filled (grey)", fontsize=9)
    shown[1].set_ylabel("head, m above " + ("the floor" if tracks.ground is not None else "the ankles"))
    shown[2].set_ylabel("pelvis, m/s")
    shown[2].set_xlabel("seconds")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
