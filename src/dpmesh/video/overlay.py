"""overlay.mp4: the tracked bodies over the video, in a second pass over its frames."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy.typing import NDArray

from dpmesh.body.layer import BodyModel
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.io import atomic_path
from dpmesh.render.overlay import draw_overlay, draw_side, palette
from dpmesh.render.paint import Layer
from dpmesh.video.decode import FrameSource, Span, import_av
from dpmesh.video.tracks import Tracks

CODECS = ("libx264", "libopenh264", "mpeg4")
"""The first that FFmpeg has encodes the overlay."""
LONGEST = 1280
"""Longest side of the overlay, px."""
_TICK = Fraction(1, 90000)
"""Seconds: unit of the overlay's times."""
_INTERPOLATED = 0.3
"""Opacity of a body that was not detected in the frame."""


@torch.no_grad()
def vertices_of(tracks: Tracks, rows: NDArray[np.int64], body: BodyModel) -> Float32[np.ndarray, "k v 3"]:
    """Of some rows, metres, camera frame."""
    device = body.faces.device
    vectors = np.concatenate([tracks.global_orient[rows], tracks.body_pose[rows]], 1).reshape(-1, 24, 3)
    turns = rotation_matrix(torch.from_numpy(vectors.astype(np.float32)).to(device))
    shape, transl = (
        torch.from_numpy(v.astype(np.float32)).to(device)
        for v in (tracks.betas_of(rows), tracks.transl[rows])
    )
    return body(shape, turns, transl).vertices.cpu().numpy()


class SideView:
    """The people from the right-hand side, with one camera and one floor for the whole video: the floor of the tracks,
    level; without one, the camera's horizontal under the lowest joint."""

    def __init__(self, tracks: Tracks) -> None:
        self._ground = tracks.ground
        points = self._level(tracks.joints3d.reshape(-1, 3).astype(np.float64))
        low, high = np.percentile(points, [0.5, 99.5], axis=0)
        self.around = np.stack([low - 0.1, high + 0.1])
        self.floor = float(self.around[1, 1]) if tracks.ground is None else 0.0
        self.around[1, 1] = max(self.around[1, 1], self.floor)

    def drawn(self, layers: list[Layer], faces: NDArray[np.int32], height: int) -> UInt8[np.ndarray, "h w 3"]:
        """As high as the overlay, with an even width."""
        level = [replace(layer, vertices=self._level(layer.vertices).astype(np.float32)) for layer in layers]
        image = draw_side(level, faces, self.around.astype(np.float64), floor=self.floor)
        width = 2 * max(1, round(image.shape[1] * height / image.shape[0] / 2))
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    def _level(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """From the camera's frame to one of a camera that looks level: y down, 0 on the floor."""
        return points if self._ground is None else self._ground.to_world(points) * [1.0, -1.0, -1.0]


def drawn_frames(
    tracks: Tracks,
    source: FrameSource,
    span: Span,
    body: BodyModel,
    view: SideView | None = None,
    last: int | None = None,
) -> Iterator[tuple[float, UInt8[np.ndarray, "h w 3"]]]:
    """The time of each frame of the span and the frame with its people, at most LONGEST px long, with even sides.

    view: is drawn at the right. last: the last frame; None: all.
    """
    faces = body.faces.cpu().numpy().astype(np.int32)
    colours = dict(zip(tracks.numbers.tolist(), palette(len(tracks)), strict=True))
    for frame in source.frames(span):
        if last is not None and frame.index > last:
            return
        height, width = frame.image.shape[:2]
        zoom = min(1.0, LONGEST / max(height, width))
        size = (2 * max(1, round(width * zoom / 2)), 2 * max(1, round(height * zoom / 2)))
        image = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        rows = tracks.in_frame(frame.index)
        layers: list[Layer] = []
        if len(rows):
            K = np.diag([size[0] / width, size[1] / height, 1.0]) @ tracks.K
            layers = [
                Layer(vertices, colours[int(tracks.track[row])])
                for row, vertices in zip(rows, vertices_of(tracks, rows, body), strict=True)
            ]
            drawn = draw_overlay(np.asarray(image, np.uint8), layers, faces, K)
            faint = tracks.interpolated[rows].all()
            image = cv2.addWeighted(image, 1 - _INTERPOLATED, drawn, _INTERPOLATED, 0) if faint else drawn
            for row in rows:
                _label(image, tracks, int(row), size[0] / width, colours[int(tracks.track[row])])
        if view is not None:
            image = np.concatenate([image, view.drawn(layers, faces, size[1])], axis=1)
        yield frame.time, np.asarray(image, np.uint8)


def _label(
    image: np.ndarray, tracks: Tracks, row: int, zoom: float, colour: tuple[float, float, float]
) -> None:
    """The track's number above the head."""
    x, y = tracks.joints2d[row, -1] * zoom
    if 0 <= x < image.shape[1] and 0 <= y < image.shape[0]:
        at = (int(x) - 8, max(14, int(y) - 12))
        text = f"{tracks.track[row]}" + ("~" if tracks.interpolated[row] else "")
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 4, cv2.LINE_AA)
        rgb = tuple(255 * c for c in colour)
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, rgb, 2, cv2.LINE_AA)


def write_overlay(
    tracks: Tracks, source: FrameSource, span: Span, body: BodyModel, path: Path, side: bool = False
) -> list[str]:
    """Write the overlay, whole or not at all, with the frames' own times. A KeyboardInterrupt ends it early, which is
    the note that is returned. side: the view from the side is next to it. Raises OutputError."""
    av = import_av()
    codec = next(name for name in CODECS if name in av.codecs_available)
    last = int(tracks.frame[-1]) if tracks.interrupted and len(tracks.frame) else None
    notes: list[str] = []
    count = 0
    with atomic_path(path) as part, closing(av.open(str(part), "w", format="mp4")) as container:
        stream = container.add_stream(codec, rate=Fraction(tracks.fps / span.every).limit_denominator(1001))
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", _TICK
        if codec == "libx264":
            stream.options = {"crf": "22", "preset": "veryfast"}
        else:
            stream.bit_rate = 4_000_000
        view = SideView(tracks) if side and len(tracks) else None
        try:
            for time, image in drawn_frames(tracks, source, span, body, view, last):
                if not count:
                    stream.height, stream.width = image.shape[:2]
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = round((time - span.start) / _TICK), _TICK
                container.mux(stream.encode(frame))
                count += 1
        except KeyboardInterrupt:
            notes.append(f"overlay.mp4 was interrupted after {count} frames")
        if count:
            container.mux(stream.encode())
    if not count:
        path.unlink(missing_ok=True)
        notes.append("no overlay.mp4: it has no frames")
    return notes
