"""The sheet of an image: the image, the keypoints that every model gets, and each model's bodies from two sides."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from dpmesh.inference.preprocess import PreparedImage, visible_joints
from dpmesh.inference.scene import Scene
from dpmesh.render import side
from dpmesh.render.overlay import Colour, Layer, draw_overlay, draw_side, palette
from dpmesh.render.panels import (
    Region,
    draw_box,
    draw_joint,
    draw_keypoints,
    fit_into,
    side_trim,
    write_lines,
)

Panel = UInt8[np.ndarray, "_ _ 3"]
SIDE = 600
"""Default size of a panel: it has as many pixels as a square of this side."""
_SMALLEST = 6 / 72 / 7
"""Of a title, in widths of the sheet: 6 pt where the sheet is 7 inches wide, a page's two columns."""
_GREY = (0.3, 0.33, 0.38)


def region_of(job: PreparedImage, size: int, crop: bool) -> Region:
    """What of the image the panels show: all, or (crop) what is around its people."""
    height, width = job.image.rgb.shape[:2]
    if not crop or not job.people:
        return Region.of((height, width), size)
    boxes = np.stack([person.box for person in job.people]).astype(np.float64)
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    margin = 0.12 * float((high - low).max())
    return Region.of((height, width), size, np.concatenate([low - margin, high + margin]))


def draw_panels(job: PreparedImage, scenes: Sequence[Scene], size: int, crop: bool) -> dict[str, Panel]:
    """input, keypoints, overlay_00, side_00, ...: all of one size but the side views, which have their own."""
    region, colours = region_of(job, size, crop), palette(len(job.people))
    plain = region.cut(job.image.rgb)
    panels: dict[str, Panel] = {"input": plain, "keypoints": _keypoints(job, plain, region, colours)}
    bodies = [person.vertices for scene in scenes for person in scene.people]
    bodies += [_on_floor(scene) for scene in scenes if scene.people]  # the shadows
    around = np.concatenate(bodies).astype(np.float64) if bodies else np.zeros((0, 3))
    trim = (slice(0, side.SIZE[0]), slice(0, side.SIZE[1]))
    if len(around):
        camera = (*side.side_camera(around), side.side_intrinsics())
        trim = side_trim(around, *camera, side.SIZE, max(1.0, plain.shape[1] / plain.shape[0]))
    for i, scene in enumerate(scenes):
        layers = [Layer(p.vertices, colour) for p, colour in zip(scene.people, colours, strict=True)]
        panels[f"overlay_{i:02d}"] = draw_overlay(plain, layers, scene.faces, region.camera(scene.K))
        panels[f"side_{i:02d}"] = np.ascontiguousarray(draw_side(layers, scene.faces, around)[trim])
    return panels


def _on_floor(scene: Scene) -> Float[np.ndarray, "n 3"]:
    """All vertices of a scene, straight down on the floor under its lowest one."""
    points = np.concatenate([person.vertices for person in scene.people]).astype(np.float64)
    points[:, 1] = points[:, 1].max()
    return points


def _keypoints(job: PreparedImage, plain: Panel, region: Region, colours: Sequence[Colour]) -> Panel:
    drawn = plain.copy()
    for i in reversed(range(len(job.people))):  # the most confident on top
        person = job.people[i]
        sure = observed_confidence(job, i)
        if sure.any():
            draw_keypoints(drawn, region.points(person.keypoints30[:, :2]), sure, colours[i])
        else:
            low, high = region.points(person.box.reshape(2, 2).astype(np.float64))
            draw_box(drawn, low, high, colours[i])
    return drawn


def observed_confidence(job: PreparedImage, i: int) -> Float[np.ndarray, "30"]:
    """Confidence of person i's joints; 0 for joints that are not visible to the models."""
    person = job.people[i]
    return np.where(visible_joints(job, person, job.crops[i]), person.keypoints30[:, 2], 0).astype(np.float32)


def draw_sheet(
    job: PreparedImage, titles: Sequence[tuple[str, str]], panels: dict[str, Panel], legend: bool = True
) -> Panel:
    """The panels in columns: the image and its keypoints over the legend, then a model each. titles: two lines."""
    height, width = panels["input"].shape[:2]
    unit = width / SIDE
    gap = max(4, round(12 * unit))
    views = panels["side_00"]
    side_height = round(views.shape[0] * width / views.shape[1])
    columns = [("Input image", ""), ("Visible keypoints", ""), *titles]
    total = len(columns) * (width + gap) + gap
    least = _SMALLEST * total
    headings = [_heading(*column, max(34 * unit, least), least) for column in columns]
    margin = 0.35 * headings[0][0][1]
    head = round(_head_height(headings, width, margin))
    sheet = np.full((head + height + 2 * gap + side_height + gap, total, 3), 255, np.uint8)
    upper, lower = slice(head, head + height), slice(head + height + gap, head + height + gap + side_height)
    for i, heading in enumerate(headings):
        x = gap + i * (width + gap)
        write_lines(sheet, heading, (float(x), margin), float(width), centred=True)
        name = ("input", "keypoints")[i] if i < 2 else f"overlay_{i - 2:02d}"
        sheet[upper, x : x + width] = panels[name]
        if i >= 2:
            sheet[lower, x : x + width] = fit_into(panels[f"side_{i - 2:02d}"], side_height, width)
    if legend:
        _legend(sheet[lower, gap : 2 * (width + gap)], job, unit)
    return sheet


Heading = list[tuple[str, float, bool]]


def _heading(title: str, subtitle: str, font: float, least: float) -> Heading:
    """Lines as of write_lines. font: px of the title. least: px, nothing is smaller."""
    return [(title, font, False), *([(subtitle, max(0.76 * font, least), True)] if subtitle else [])]


def _head_height(headings: Sequence[Heading], width: int, margin: float) -> float:
    blank = np.zeros((1, width, 3), np.uint8)
    return max(write_lines(blank, heading, (0.0, margin), float(width)) for heading in headings) + margin


def _legend(canvas: Panel, job: PreparedImage, unit: float) -> None:
    """Who has which colour, and how to read the panels; in place. What does not fit is left out, people first."""
    height, width = canvas.shape[:2]
    font = 27 * unit
    x, y, wide = 0.5 * font, 0.5 * font, width - font
    notes = [
        "Keypoints: the input of every model. Larger and more opaque: more confident. Joints that are not"
        " visible are not drawn. A box: a person without keypoints.",
        "Overlay: hatched where a nearer body hides it.",
        "Below: the same bodies from the side, the photographer's camera to the left. One camera and scale in all"
        f" columns; the floor is under each column's lowest point, lines every {side.GRID:g} m.",
    ]
    lines = [(text, 0.85 * font, True) for text in notes]
    blank = np.zeros((1, width, 3), np.uint8)
    needed = write_lines(blank, lines, (0.0, 0.0), wide) + 2.2 * font  # the row of sample joints above them
    row = 1.5 * font
    per_row = max(1, int(wide // (20 * font)))
    fit = max(0, int((height - y - needed - font) // row)) * per_row
    colours, shown = palette(len(job.people)), min(fit, len(job.people))
    for i in range(shown):
        at = (x + (i % per_row) * wide / per_row, y + (i // per_row) * row)
        draw_joint(canvas, np.array([at[0] + 0.5 * font, at[1] + 0.55 * font]), 1.0, colours[i], 1.3 * unit)
        count = int((observed_confidence(job, i) > 0).sum())
        text = f"Person {i}: score {job.people[i].score:.2f}, {count} of 30 joints"
        write_lines(canvas, [(text, 0.9 * font, False)], (at[0] + 1.4 * font, at[1]), wide)
    y += -(-shown // per_row) * row
    if not job.people:
        y = write_lines(canvas, [("No person detected.", font, False)], (x, y), wide)
    y += 0.4 * font
    step = 9.5 * font
    for i, sure in enumerate((max(job.min_confidence, 0.05), 0.5, 1.0)):
        draw_joint(canvas, np.array([x + i * step + 0.5 * font, y + 0.55 * font]), sure, _GREY, unit)
        text = f"confidence {sure:g}"
        write_lines(canvas, [(text, 0.85 * font, True)], (x + i * step + 1.2 * font, y), wide)
    write_lines(canvas, lines, (x, y + 1.6 * font), wide)
