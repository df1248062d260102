"""A result on the disk as one HTML page."""

from pathlib import Path

import numpy as np

from dpmesh.inference.scene import Scene
from dpmesh.io import atomic_write
from dpmesh.video.decode import Span, open_frames
from dpmesh.video.exports import animated_glb
from dpmesh.video.tables import given_fps, read_text
from dpmesh.video.tracks import Tracks
from dpmesh.video.tracks_page import page_video, tracks_page
from dpmesh.viewer.results import SCENE, layer_of, recorded_video


def write_page(folder: Path, path: Path, image: Path | None = None, body: Path | None = None) -> int:
    """Write the page, whole or not at all; returns its bytes. Arguments as open_result.

    A video that is no longer there is left out. Raises InputError, ConfigError, OutputError.
    """
    of_image = (folder / SCENE).is_file()
    page = Scene.load(folder, image, body).to_html() if of_image else _of_tracks(folder, image, body)
    content = page.encode()
    atomic_write(path, content)
    return len(content)


def _of_tracks(folder: Path, video: Path | None, body: Path | None) -> str:
    tracks = Tracks.load(folder)
    layer = layer_of(body)
    glb = b"".join(animated_glb(tracks, layer, layer.faces.cpu().numpy().astype(np.int32)))
    source = str(video) if video else recorded_video(folder)
    first = float(tracks.time[0]) if len(tracks.time) else 0.0
    last = float(tracks.time[-1]) if len(tracks.time) else 0.0
    span = Span(start=max(0.0, first - 0.5 / tracks.fps), end=last + 0.5 / tracks.fps)
    mp4 = page_video(open_frames(source, given_fps(read_text(folder))), span) if source else None
    return tracks_page(tracks, glb, folder.name, mp4, start=span.start)
