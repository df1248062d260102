"""How far an image's camera is rolled, from the straight edges in it.

Edges that are vertical in the world meet in one vanishing point, wherever the camera points. Of a grid of rolls and
pitches the one is taken that most of the image's line segments agree with, by their length (as in Kosecka and Zhang,
Video compass, ECCV 2002, with the vertical direction alone). An estimate counts where enough of the segments agree, and
clearly more than with a level camera.
"""

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

SIDE = 512
"""Longer side of the image in which segments are detected, px."""
SHORTEST, MOST = 0.03, 200
"""Segments count from this share of the longer side; so many of the longest."""
WIDTH = 2.0
"""Standard deviation of a segment's direction, degrees."""
FARTHEST, STEEPEST = 44.0, 40.0
"""Ranges of roll and pitch, degrees."""
EXPECTED = 40.0, 60.0
"""Standard deviations of roll and pitch, degrees."""
LEVEL = 4.0
"""Rolls up to this count as level."""
LEAST_ROLL, MOST_ROLL, LEAST_SHARE, LEAST_RATIO = 8.0, 40.0, 0.1, 1.3
"""An estimate counts from this roll to that, from this share of the segments, and from so many times a level camera's
share. Less roll than the first is common in training and costs nothing."""


def camera_roll(image: UInt8[np.ndarray, "h w 3"], focal: float) -> float:
    """Degrees that upright things lean clockwise in an RGB image; 0 where its edges do not tell. focal: px."""
    segments = line_segments(image)
    if len(segments) < 5:
        return 0.0
    size = (image.shape[0], image.shape[1])
    rolls, pitches = np.arange(-FARTHEST, FARTHEST + 1, 2), np.arange(-STEEPEST, STEEPEST + 1, 5)
    shares = agreement(segments, focal, size, rolls, pitches)
    expected = np.exp(-0.5 * (rolls[:, None] / EXPECTED[0]) ** 2 - 0.5 * (pitches / EXPECTED[1]) ** 2)
    i, j = np.unravel_index((shares * expected).argmax(), shares.shape)
    finer = rolls[i] + np.arange(-2, 2.1, 0.5), pitches[j] + np.arange(-6, 6.1, 2)
    near = agreement(segments, focal, size, *finer)
    roll, share = float(finer[0][near.max(1).argmax()]), float(near.max())
    level = float(shares[np.abs(rolls) <= LEVEL].max())
    counts = LEAST_ROLL <= abs(roll) <= MOST_ROLL and share >= max(LEAST_SHARE, LEAST_RATIO * level)
    return roll if counts else 0.0


def line_segments(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "n 4"]:
    """Straight edges x1 y1 x2 y2, px from the image's middle: the longest, by LSD (von Gioi et al., TPAMI 2010)."""
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    lines = cv2.createLineSegmentDetector(cv2.LSD_REFINE_NONE).detect(grey)[0]
    if lines is None:
        return np.zeros((0, 4))
    segments = np.asarray(lines, np.float64).reshape(-1, 4)
    length = np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1])
    longest = np.argsort(-length, kind="stable")[:MOST]
    chosen = segments[longest[length[longest] > SHORTEST * max(size)]]
    return chosen / scale - np.array([width, height, width, height]) / 2


def agreement(
    segments: Float[np.ndarray, "n 4"],
    focal: float,
    size: tuple[int, int],
    rolls: Float[np.ndarray, "r"] | Int32[np.ndarray, "r"],
    pitches: Float[np.ndarray, "p"] | Int32[np.ndarray, "p"],
) -> Float32[np.ndarray, "r p"]:
    """Which share of the segments (px from the middle) is vertical for a camera, by length. size: height, width."""
    middle = (segments[:, :2] + segments[:, 2:]) / 2 / focal
    along = segments[:, 2:] - segments[:, :2]
    length = np.linalg.norm(along, axis=1)
    x, y = (along / length[:, None]).T
    roll, pitch = np.meshgrid(np.deg2rad(rolls), np.deg2rad(pitches), indexing="ij")
    up = np.stack([np.cos(pitch) * np.sin(roll), -np.cos(pitch) * np.cos(roll), np.sin(pitch)], -1)
    up = up.reshape(-1, 3).astype(np.float32)
    # Where the image is at m, up points along v = up_xy - m up_z; off is the sine of its angle to the segment.
    normal = np.stack([y, -x, middle[:, 1] * x - middle[:, 0] * y]).astype(np.float32)
    m = middle.T.astype(np.float32)
    xy, z = up[:, :2], up[:, 2:]
    square = (xy**2).sum(1, keepdims=True) - 2 * z * (xy @ m) + z**2 * (m**2).sum(0)
    off = (up @ normal) ** 2 / np.maximum(square, 1e-9)
    weight = (length / length.sum()).astype(np.float32)
    return (np.exp(off * np.float32(-0.5 / np.deg2rad(WIDTH) ** 2)) @ weight).reshape(roll.shape)
