"""Whether the camera moves: corners of the background followed from image to image (Shi and Tomasi; Lucas and Kanade).

People are left out, and what else moves is ignored: of a moving camera nearly all corners are displaced. Images are
compared with one up to two seconds earlier, so that slow pans add up, and with nothing earlier: memory is constant.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

SIDE = 480
"""Pixels of the longer side of what is compared."""
MOVED = 0.001
"""Share of the image's diagonal by which the background of a camera that moves is displaced."""
APART, RENEWED = 0.2, 2.0
"""Seconds between two comparisons, and from one reference to the next."""
_CORNERS, _FEWEST = 200, 12
_PERSON = 0.2
"""Of a box, by which it is enlarged on each side."""
_STILL = 0.25
"""Share of the corners that may be still although the camera moves."""
_TOGETHER = 1.5
"""Pixels by which a corner may miss the place that the common motion gives it."""
_RETURNED = 1.0
"""Pixels by which a corner may miss its place when it is followed back."""


def camera_motion(
    earlier: UInt8[np.ndarray, "h w"],
    later: UInt8[np.ndarray, "h w"],
    boxes: Sequence[Float[np.ndarray, "4"]],
) -> float:
    """Displacement of the background's corners, px, that three quarters of them reach, alone and as one moving image
    (translated, turned and scaled, so that noise averages out); NaN where too few can be followed.

    earlier, later: grey. boxes: of people in either image, x1 y1 x2 y2.
    """
    mask = np.full(earlier.shape, 255, np.uint8)
    for x1, y1, x2, y2 in boxes:
        across, down = _PERSON * (x2 - x1), _PERSON * (y2 - y1)
        low = np.maximum([x1 - across, y1 - down], 0).astype(int)
        mask[low[1] : max(int(y2 + down), 0), low[0] : max(int(x2 + across), 0)] = 0
    corners = cv2.goodFeaturesToTrack(earlier, _CORNERS, 0.01, 7, mask=mask)
    if corners is None or len(corners) < _FEWEST:
        return float("nan")
    there, found, _ = cv2.calcOpticalFlowPyrLK(earlier, later, corners, np.empty_like(corners))
    back, again, _ = cv2.calcOpticalFlowPyrLK(later, earlier, there, np.empty_like(corners))
    good = (found.ravel() > 0) & (again.ravel() > 0)
    good &= np.linalg.norm(back - corners, axis=-1).ravel() < _RETURNED
    if good.sum() < _FEWEST:
        return float("nan")
    here, there = (points.reshape(-1, 2)[good].astype(np.float64) for points in (corners, there))
    alone = np.linalg.norm(there - here, axis=1)
    whole, _ = cv2.estimateAffinePartial2D(here, there, ransacReprojThreshold=_TOGETHER)
    if whole is None:
        return float(np.quantile(alone, _STILL))
    together = np.linalg.norm(here @ whole[:, :2].T + whole[:, 2] - here, axis=1)
    return float(min(np.quantile(alone, _STILL), np.quantile(together, _STILL)))


class StillCamera:
    """Fed with the frames of a video in order, knows whether the camera has moved."""

    def __init__(self) -> None:
        self.moved = False
        self.most = 0.0
        """Share of the diagonal by which the background was displaced at most."""
        self._reference: UInt8[np.ndarray, "h w"] | None = None
        self._boxes: list[Float[np.ndarray, 4]] = []
        self._begun = self._compared = 0.0

    def add(
        self, image: UInt8[np.ndarray, "h w 3"], boxes: Sequence[Float[np.ndarray, "4"]], time: float
    ) -> None:
        """boxes: of the frame's people, px."""
        if self._reference is not None and time - self._compared < APART:
            return
        scale = min(1.0, SIDE / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
        here = [np.asarray(box, np.float64) * scale for box in boxes]
        self._compared = time
        if self._reference is not None:
            pixels = camera_motion(self._reference, grey, [*self._boxes, *here])
            if np.isfinite(pixels):
                self.most = max(self.most, pixels / float(np.hypot(*grey.shape)))
            self.moved = self.most > MOVED
        if self._reference is None or time - self._begun >= RENEWED:
            self._reference, self._boxes, self._begun = grey, here, time
