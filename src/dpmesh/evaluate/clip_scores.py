"""The errors of people over the frames of a rendered clip, one row for each person."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from dpmesh.data.synthocc.clips import Clip
from dpmesh.data.synthocc.motion import FEET, FPS
from dpmesh.evaluate.identities import Identities, TrackedFrame, identities
from dpmesh.evaluate.protocol import Measure
from dpmesh.evaluate.results import FRAME_COLUMNS
from dpmesh.inference.detections import box_iou
from dpmesh.metrics import MILLIMETRES, aligned_distances, distances
from dpmesh.skeletons import H36M17, JOINTS30

IGNORED = 0.2
"""Share of the main joints in sight below which a person may be predicted or not."""
BACK = 0.5
"""Share from which a person who was hidden is in sight again."""
_OWN = np.array(H36M17.indices_in(JOINTS30))


@dataclass(frozen=True, eq=False)
class TrackRows:
    """Predictions, one row for each person and frame. joints3d: metres, camera frame; joints2d: image px."""

    frame: Int64[np.ndarray, " n"]
    track: Int64[np.ndarray, " n"]
    joints3d: Float[np.ndarray, "n 30 3"]
    joints2d: Float[np.ndarray, "n 30 2"]


def clip_scores(measure: Measure, clip: Clip, rows: TrackRows) -> dict[str, np.ndarray]:
    """Columns of results.Rows for the people of a clip.

    mpjpe, pa_mpjpe, joint, joint_pa: means over the frames in which the person is matched, mm. acceleration: mean error
    of root-relative joints, m/s². slide: 90th percentile of how far a foot moves between frames in which it stands, mm.
    missed: frames without a match, per cent. recovery: mean seconds from when a person who was hidden is back in sight
    until the same identity as before is matched again; what is left of the clip where none is. frames: of each frame.
    """
    count, length = clip.joints.shape[:2]
    ignored = clip.shown < IGNORED
    boxes = _boxes(clip.pixels(clip.joints))
    at = [np.flatnonzero(rows.frame == t) for t in range(length)]
    found = identities(
        [
            TrackedFrame(
                np.arange(count),
                rows.track[at[t]],
                box_iou(boxes[:, t], _boxes(rows.joints2d[at[t]].astype(np.float64))),
                ignored[:, t],
            )
            for t in range(length)
        ]
    )
    match = np.full((count, length), -1)
    for t, pairs in enumerate(found.pairs):
        for person, column in pairs:
            match[person, t] = at[t][column]
    columns = [
        _person(measure, clip, rows, person, match[person], ignored[person]) for person in range(count)
    ]
    out = {name: np.stack([one[name] for one in columns]) for name in columns[0]}
    return out | _identity_columns(found, count)


def _identity_columns(found: Identities, count: int) -> dict[str, np.ndarray]:
    def spread(values: np.ndarray) -> np.ndarray:
        """A person who is never in sight has none."""
        out = np.zeros(count)
        out[found.truth] = values
        return out

    return {
        "idtp": spread(found.idtp),
        "idfn": spread(found.idfn),
        "idfp": np.full(count, found.idfp / count),  # no person's in particular; sums count
        "switches": spread(found.switches),
    }


def _person(
    measure: Measure,
    clip: Clip,
    rows: TrackRows,
    person: int,
    match: Int64[np.ndarray, " t"],
    ignored: Bool[np.ndarray, " t"],
) -> dict[str, Any]:
    times = np.flatnonzero(match >= 0)
    chosen = _OWN[list(measure.rows)]
    joints3d = rows.joints3d[match[times]].astype(np.float64)
    got = (joints3d - joints3d[:, :1])[:, chosen]
    true = (clip.joints[person] - clip.joints[person, :, :1])[times][:, chosen]
    nothing = np.full(len(chosen), np.nan)
    frames = np.full((len(match), len(FRAME_COLUMNS)), np.nan)
    frames[:, FRAME_COLUMNS.index("shown")] = clip.shown[person]
    joint = joint_pa = nothing
    if len(times):
        each, each_pa = distances(got, true), aligned_distances(got, true)
        joint, joint_pa = each.mean(0), each_pa.mean(0)
        frames[times, 0], frames[times, 1] = each.mean(1), each_pa.mean(1)
    middle = (
        np.flatnonzero((np.diff(times)[:-1] == 1) & (np.diff(times)[1:] == 1)) + 1 if len(times) > 2 else []
    )
    second = (
        [(a[1:-1] * -2 + a[:-2] + a[2:])[np.asarray(middle, int) - 1] for a in (got, true)]
        if len(times) > 2
        else []
    )
    acceleration = np.nan
    if len(middle):
        off = np.linalg.norm(second[0] - second[1], axis=-1) * FPS**2
        acceleration, frames[times[middle], FRAME_COLUMNS.index("acceleration")] = off.mean(), off.mean(1)
    pair = np.flatnonzero(np.diff(times) == 1)
    standing = clip.contacts[person, times][pair] & clip.contacts[person, times][pair + 1]
    steps = np.linalg.norm((joints3d[pair + 1] - joints3d[pair])[:, FEET], axis=-1)
    first = FRAME_COLUMNS.index("slide_L_Ankle")
    frames[times[pair], first : first + len(FEET)] = np.where(standing, steps * MILLIMETRES, np.nan)
    moved = steps[standing]
    return {
        "mpjpe": joint.mean(),
        "pa_mpjpe": joint_pa.mean(),
        "joint": joint,
        "joint_pa": joint_pa,
        "acceleration": acceleration,
        "slide": np.quantile(moved, 0.9) * MILLIMETRES if len(moved) else np.nan,
        "missed": 100 * (match[~ignored] < 0).mean() if (~ignored).any() else np.nan,
        "recovery": _recovery(clip.shown[person], match, rows.track),
        "frames": frames,
    }


def _recovery(
    shown: Float[np.ndarray, " t"], match: Int64[np.ndarray, " t"], tracks: Int64[np.ndarray, " n"]
) -> float:
    """Mean seconds, NaN for a person who was never hidden after a match."""
    waits: list[int] = []
    hidden = np.flatnonzero(shown < IGNORED)
    while len(hidden):
        start = hidden[0]
        back = start + int(np.argmax(shown[start:] >= BACK))
        if shown[back] < BACK:
            break
        earlier = np.flatnonzero(match[:start] >= 0)
        if len(earlier):
            before = tracks[match[earlier[-1]]]
            same = [t for t in range(back, len(match)) if match[t] >= 0 and tracks[match[t]] == before]
            waits.append((same[0] if same else len(match)) - back)
        hidden = hidden[hidden > back]
    return float(np.mean(waits)) / FPS if waits else float("nan")


def _boxes(points: Float[np.ndarray, "*n 30 2"]) -> Float[np.ndarray, "*n 4"]:
    """Around the joints."""
    return np.concatenate([points.min(-2), points.max(-2)], -1)
