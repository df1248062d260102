"""TRC: a person's joints as markers, as OpenSim and motion capture programs read them.

Source: OpenSim's documentation, "Marker (.trc) Files". Frame of the file: y up, metres.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float


def trc_lines(
    joints: Float[np.ndarray, "t j 3"], names: Sequence[str], fps: float, file: str, start: float = 0.0
) -> Iterator[str]:
    """joints: one row for each frame, without gaps. file: its name. start: seconds, of the first row."""
    yield f"PathFileType\t4\t(X/Y/Z)\t{file}"
    head = (
        "DataRate",
        "CameraRate",
        "NumFrames",
        "NumMarkers",
        "Units",
        "OrigDataRate",
        "OrigDataStartFrame",
    )
    yield "\t".join([*head, "OrigNumFrames"])
    yield f"{fps:g}\t{fps:g}\t{len(joints)}\t{len(names)}\tm\t{fps:g}\t1\t{len(joints)}"
    yield "Frame#\tTime\t" + "\t\t\t".join(names) + "\t\t"
    yield "\t\t" + "\t".join(f"{axis}{i}" for i in range(1, len(names) + 1) for axis in "XYZ")
    yield ""
    for row, points in enumerate(joints):
        yield f"{row + 1}\t{start + row / fps:.6f}\t" + "\t".join(f"{value:.5f}" for value in points.ravel())
