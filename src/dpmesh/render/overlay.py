"""The images of a result: bodies drawn over the photo, and bodies from the side.

The overlay is amodal: visible surfaces are shaded and translucent; what another body hides is drawn through it,
hatched and outlined. Objects other than bodies hide nothing.
"""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Float, Float32, Integer, UInt8

from dpmesh.render import lineup, side
from dpmesh.render.paint import Colour, Layer, Window, paint_bodies, scaled
from dpmesh.render.typed import to_uint8, transform

_PALETTE = ("f0826a", "4fb0c6", "f4c35a", "9a8be0", "7fc27a", "e58db8", "5f93ee", "cda57f")
LONGEST = 1600
"""Longest side of an overlay, pixels: PNGs stay a few MB and the work bounded."""
TRANSLUCENT = 0.6
"""Opacity of a body over a photo: limbs and the edges of clothes below it remain visible."""
FAINT = 0.25
"""Of other hypotheses of a body."""


def palette(count: int) -> list[Colour]:
    """Distinct colours for people; they repeat after eight."""
    values = [tuple(int(h[i : i + 2], 16) / 255 for i in (0, 2, 4)) for h in _PALETTE]
    return [(r, g, b) for r, g, b in (values[i % len(values)] for i in range(count))]


def draw_overlay(
    image: UInt8[np.ndarray, "h w 3"],
    layers: Sequence[Layer],
    faces: Integer[np.ndarray, "f 3"],
    K: Float[np.ndarray, "3 3"],
    opacity: float = TRANSLUCENT,
    faint: Sequence[Sequence[Layer]] = (),
    longest: int = LONGEST,
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The image, at most `longest` pixels long, with every body on it. K: pixels of `image`. faint: groups of bodies
    that are drawn below, each group by itself."""
    height, width = image.shape[:2]
    zoom = min(1.0, longest / max(height, width))
    size = (max(1, round(height * zoom)), max(1, round(width * zoom)))
    if zoom < 1:
        image = to_uint8(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA))
    if not layers:
        return to_uint8(image)
    canvas = to_uint8(image)
    camera = scaled(K, size[1] / width, size[0] / height)
    for group in faint:
        _lay(canvas, *paint_bodies(group, faces, camera, size, FAINT))
    _lay(canvas, *paint_bodies(layers, faces, camera, size, opacity))
    return canvas


def _lay(canvas: UInt8[np.ndarray, "h w 3"], paint: Float32[np.ndarray, "h2 w2 4"], at: Window) -> None:
    """Paint over a window of the canvas, in place."""
    canvas[at] = to_uint8(canvas[at] * (1 - paint[..., 3:]) + 255 * paint[..., :3])


def draw_side(
    layers: Sequence[Layer],
    faces: Integer[np.ndarray, "f 3"],
    around: Float[np.ndarray, "n 3"] | None = None,
    floor: float | None = None,
) -> UInt8[np.ndarray, "900 1200 3"]:
    """The bodies from the side where they stand, on a floor with a line every half metre; without any, a wall.

    around: points (metres, camera frame) that the view is to hold, so that several drawings have one camera and one
    scale; None: the bodies themselves. floor: y of the floor, metres; None: under the lowest body that is drawn.
    """
    canvas = side.backdrop()
    if not layers and (around is None or floor is None):
        return to_uint8(255 * canvas)
    own = (
        np.concatenate([layer.vertices for layer in layers]).astype(np.float64)
        if layers
        else np.zeros((0, 3))
    )
    points = own if around is None else around.astype(np.float64)
    R, t = side.side_camera(points)
    floor = float(own[:, 1].max()) if floor is None else floor
    side.draw_floor(canvas, points, R, t, floor)
    for layer in layers:
        side.draw_shadow(canvas, layer.vertices, faces, floor, R, t)
    turned = [replace(layer, vertices=transform(layer.vertices, R, t).astype(np.float32)) for layer in layers]
    image = to_uint8(255 * canvas)
    if turned:
        _lay(image, *paint_bodies(turned, faces, side.side_intrinsics(), side.SIZE))
    return image


def draw_lineup(
    layers: Sequence[Layer], faces: Integer[np.ndarray, "f 3"], names: Sequence[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """Each body from the side, all at one scale and on one floor, next to each other, under lines every half metre.

    Vertices: camera frame. The camera is to the left. Under a body: its name, and its distance along z.
    """
    bodies = [lineup.turned(layer.vertices) for layer in layers]
    plan = lineup.arrange(bodies)
    canvas = lineup.draw_floors(plan)
    placed = [
        replace(layer, vertices=plan.placed(body, i))
        for i, (layer, body) in enumerate(zip(layers, bodies, strict=True))
    ]
    if placed:
        _lay(canvas, *paint_bodies(placed, faces, plan.camera, plan.size))
    texts = [
        (name, f"{float(np.median(layer.vertices[:, 2])):.1f} m away")
        for name, layer in zip(names, layers, strict=True)
    ]
    return lineup.write_names(canvas, plan, texts)
