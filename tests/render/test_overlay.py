"""Overlay and side views: bodies where they project, the nearer one shaded, the hidden one drawn through it."""

import itertools

import cv2
import numpy as np
import pytest

from dpmesh.geometry.camera import intrinsics
from dpmesh.render import lineup, paint, side
from dpmesh.render.overlay import LONGEST, TRANSLUCENT, Layer, draw_lineup, draw_overlay, draw_side, palette
from dpmesh.render.rasterizer import rasterize
from dpmesh.render.shading import shade, vertex_normals
from dpmesh.render.typed import transform

FACES = np.array([(0, 1, 2), (1, 3, 2), (3, 4, 2), (4, 0, 2), (1, 0, 5), (3, 1, 5), (4, 3, 5), (0, 4, 5)])
CORNERS = np.vstack([np.eye(3), -np.eye(3)])
K = intrinsics(300.0, (240, 320))
GREY = np.full((240, 320, 3), 90, np.uint8)
RED, BLUE = (0.9, 0.2, 0.2), (0.2, 0.3, 0.9)


def octahedron(x: float, y: float, z: float, size: float = 0.5) -> np.ndarray:
    return (CORNERS * size + [x, y, z]).astype(np.float32)


def redness(image: np.ndarray, x: int, y: int) -> int:
    return int(image[y, x, 0]) - int(image[y, x, 2])


def test_body_is_drawn_where_it_projects() -> None:
    overlay = draw_overlay(GREY, [Layer(octahedron(0.5, -0.2, 3), RED)], FACES, K)
    assert overlay.shape == GREY.shape and overlay.dtype == np.uint8
    assert redness(overlay, 160 + 50, 120 - 20) > 40
    changed = (overlay != GREY).any(-1)
    rows, columns = np.nonzero(changed)
    # The octahedron's corners at z = 3 m: 50 px to each side of its middle.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((50, 150, 160, 260), abs=2)


def test_edges_are_smooth() -> None:
    overlay = draw_overlay(GREY, [Layer(octahedron(0, 0, 3), RED)], FACES, K)
    assert len(np.unique(overlay[:, :, 0])) > 30


def test_the_nearer_body_is_solid_and_the_hidden_one_shows_through() -> None:
    """In either order of the list: red in front of blue, blue behind and larger."""
    front, behind = Layer(octahedron(0, 0, 2, 0.3), RED), Layer(octahedron(0, 0, 4, 1.0), BLUE)
    alone = draw_overlay(GREY, [front], FACES, K)
    for layers in ([front, behind], [behind, front]):
        overlay = draw_overlay(GREY, layers, FACES, K)
        inside = np.s_[105:135, 145:175]  # red covers it
        change = overlay[inside].astype(int) - alone[inside].astype(int)
        assert 0.2 < (change[..., 2] > 40).mean() < 0.8  # stripes: not nothing, not everything
        assert (np.abs(change).max(-1) < 40).mean() > 0.4  # between them the nearer body as it is alone
        assert redness(overlay, 160 + 60, 120) < -40  # next to the red one, blue is solid


def test_behind_the_camera_or_outside_changes_nothing() -> None:
    for at in ((0, 0, -3), (50, 0, 3), (0, 0, 0)):
        np.testing.assert_array_equal(draw_overlay(GREY, [Layer(octahedron(*at, 0.01), RED)], FACES, K), GREY)


def test_large_images_are_drawn_smaller_in_the_same_place() -> None:
    image = np.full((1200, 2 * LONGEST, 3), 90, np.uint8)
    camera = intrinsics(1500.0, image.shape[:2])
    overlay = draw_overlay(image, [Layer(octahedron(0.8, 0.2, 3), RED)], FACES, camera)
    assert overlay.shape == (600, LONGEST, 3)
    rows, columns = np.nonzero((overlay != 90).any(-1))
    centre = ((rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2)
    assert centre == pytest.approx((300 + 50, LONGEST / 2 + 200), abs=2)


def test_the_photograph_shows_through_evenly() -> None:
    """A pixel that is painted twice (outlines) is not more opaque than opaque."""
    layers = [Layer(octahedron(0, 0, 3), RED), Layer(octahedron(0.3, 0, 3.5), BLUE)]
    dark, light = (draw_overlay(np.full_like(GREY, v), layers, FACES, K).astype(int) for v in (100, 200))
    through = (light - dark)[40:200, 100:260]
    assert through.min() >= 0 and (light - dark)[0, 0].tolist() == [100, 100, 100]
    for opacity, share in ((0.93, 7), (TRANSLUCENT, 40), (0.0, 100)):
        alone = [
            draw_overlay(np.full_like(GREY, v), layers[:1], FACES, K, opacity).astype(int) for v in (100, 200)
        ]
        assert (alone[1] - alone[0])[120, 165, 1] == pytest.approx(share, abs=1)


@pytest.mark.parametrize("grey", [5, 90, 250])
def test_the_outline_stands_out_from_any_photo(grey: int) -> None:
    """Across a silhouette the image changes by a good step, also where photo and body have one colour."""
    photo = np.full((240, 320, 3), grey, np.uint8)
    body = Layer(octahedron(0, 0, 3), (grey / 255,) * 3)
    row = draw_overlay(photo, [body], FACES, K)[120, 100:125].astype(int)  # the left corner is at 110
    assert np.abs(np.diff(row, axis=0)).max() > 25
    if grey == 5:  # only the light line can
        inside = draw_overlay(photo, [body], FACES, K)[120, 125:150].astype(int)
        assert row.max() > inside.max() + 30


def test_only_the_window_of_the_bodies_is_painted() -> None:
    """Their position in the image does not matter: moved by whole pixels, the same pixels come out."""
    layers = [Layer(octahedron(0, 0, 3), RED), Layer(octahedron(0.4, 0.3, 4), BLUE)]
    plain = draw_overlay(GREY, layers, FACES, K)
    moved = K + np.array([[0, 0, 37], [0, 0, -20], [0, 0, 0]])
    np.testing.assert_allclose(
        draw_overlay(GREY, layers, FACES, moved)[30:170, 137:300].astype(int),
        plain[50:190, 100:263].astype(int),
        atol=1,
    )
    far = [Layer(octahedron(-0.9, 0, 3, 0.2), RED), Layer(octahedron(0.9, 0.3, 3, 0.2), BLUE)]
    both = draw_overlay(GREY, far, FACES, K).astype(int) - GREY
    alone = [draw_overlay(GREY, [layer], FACES, K).astype(int) - GREY for layer in far]
    np.testing.assert_allclose(both, alone[0] + alone[1], atol=1)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (2, 3)])
def test_tiny_images_keep_their_size(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    overlay = draw_overlay(image, [Layer(octahedron(0, 0, 3), RED)], FACES, intrinsics(10.0, size))
    assert overlay.shape == image.shape


def test_same_input_same_image() -> None:
    layers = [Layer(octahedron(0, 0, 3), RED), Layer(octahedron(0.3, 0, 3.5), BLUE)]
    np.testing.assert_array_equal(draw_overlay(GREY, layers, FACES, K), draw_overlay(GREY, layers, FACES, K))


def test_side_view_shows_all_people_nearer_to_the_left() -> None:
    near, far = Layer(octahedron(0, 0, 3), RED), Layer(octahedron(0, 0, 6), BLUE)
    image = draw_side([near, far], FACES).astype(int)
    red = np.nonzero(image[..., 0] - image[..., 2] > 60)[1]
    blue = np.nonzero(image[..., 2] - image[..., 0] > 60)[1]
    assert red.max() < blue.min()
    assert red.min() > 0 and blue.max() < image.shape[1] - 1


def test_side_view_without_bodies() -> None:
    assert draw_side([], FACES).std() > 0


def colour_box(image: np.ndarray, channel: int) -> tuple[int, int, int, int]:
    """Rows and columns where this channel exceeds the opposite one: top, bottom, left, right."""
    rows, columns = np.nonzero(image[..., channel].astype(int) - image[..., 2 - channel] > 15)
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


def test_lineup_has_one_scale_and_one_floor() -> None:
    """Near and small, far and large, high above: each at its own size, its lowest point on the floor's line."""
    small, large = octahedron(0.4, -2.0, 2, 0.4), octahedron(-1, 1.5, 9, 0.8)
    large[:, 0] *= 1.3  # across the camera: not visible from the side
    image = draw_lineup([Layer(small, RED), Layer(large, BLUE)], FACES, ["person_00", "person_01"])
    (top, bottom, left, right), (top2, bottom2, left2, right2) = (colour_box(image, c) for c in (0, 2))
    plan = lineup.arrange([lineup.turned(small), lineup.turned(large)])
    assert bottom == pytest.approx(bottom2, abs=2) and bottom == pytest.approx(
        plan.rows[0] * plan.scale, abs=2
    )
    for size, high, wide in ((0.8, bottom - top, right - left), (1.6, bottom2 - top2, right2 - left2)):
        assert (high, wide) == pytest.approx((size * plan.scale, size * plan.scale), abs=4)
    assert right < left2


def test_lineup_states_the_direction_of_the_view_below() -> None:
    body = [[0.0, 0, 3], [0, 1.7, 3], [0.2, 1, 3]]
    image = draw_lineup([Layer(np.array(body, np.float32), RED)], np.array([(0, 1, 2)]), ["person_00"])
    rows = lineup.arrange([lineup.turned(np.array(body))]).size[0]
    strip = image[rows:].astype(int)
    assert len(strip) > 30 and (np.ptp(strip, axis=(1, 2)) > 80).sum() > 15  # two lines of text


def test_lineup_faces_the_photographer_to_the_left() -> None:
    """A triangle towards the camera is left of the body."""
    nose = np.array([(0, 0, 2), (0, 0.4, 3), (0, -0.4, 3), (0, 0, 3.01)], np.float32)
    image = draw_lineup([Layer(nose, RED)], np.array([(0, 1, 2), (1, 3, 2)]), ["person_00"])
    _, _, left, right = colour_box(image, 0)
    columns = (image[..., 0].astype(int) - image[..., 2] > 60).sum(0)
    assert columns[left : left + 20].mean() < columns[right - 20 : right].mean()


@pytest.mark.parametrize("count", [0, 1, 20])
def test_lineup_of_any_number(count: int) -> None:
    bodies = [octahedron(0, 0, 3 + i, 0.9) for i in range(count)]
    names = [f"person_{i:02d}" for i in range(count)]
    image = draw_lineup([Layer(body, RED) for body in bodies], FACES, names)
    assert image.shape[1] <= lineup.WIDEST and image.shape[0] < 1600
    plan = lineup.arrange([lineup.turned(body) for body in bodies])
    assert plan.size[1] == image.shape[1] and 0 < image.shape[0] - plan.size[0] < 60  # the text below
    spots = sorted(plan.places, key=lambda place: (place[1], place[0]))
    assert spots == list(plan.places)  # in order
    for (x, floor), (x2, floor2) in itertools.pairwise(spots):
        assert floor2 > floor + 1.8 or x2 >= x + 1.8  # no two overlap


def test_palette_is_distinct() -> None:
    assert len(set(palette(8))) == 8 and palette(9)[8] == palette(9)[0]


def test_normals_point_out_and_are_unit() -> None:
    normals = vertex_normals(CORNERS.astype(np.float32), FACES)
    np.testing.assert_allclose(normals, CORNERS, atol=1e-6)


def test_surfaces_towards_the_light_are_brighter() -> None:
    points = np.tile([[0.0, 0, 3]], (2, 1))
    up, down = shade(points, np.array([[0, -0.8, -0.6], [0, 0.8, -0.6]]), (0.5, 0.5, 0.5))
    assert up.mean() > down.mean() + 0.1


def test_light_does_not_jump_at_the_outline() -> None:
    """Neighbouring vertices before and behind it belong to one triangle."""
    angle = np.deg2rad([89.9, 90.1, 110.0])
    normals = np.stack([np.zeros(3), -np.sin(angle), -np.cos(angle)], 1)
    before, behind, further = shade(np.tile([[0.0, 0, 3]], (3, 1)), normals, (0.5, 0.5, 0.5))
    np.testing.assert_allclose(behind, before, atol=0.01)
    np.testing.assert_allclose(further, before, atol=0.01)


def test_light_costs_each_vertex_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pixels a body covers, and also where it is hidden."""
    lit: list[int] = []

    def counted(points: np.ndarray, normals: np.ndarray, colour: object) -> np.ndarray:
        lit.append(len(points))
        return shade(points, normals, colour)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(paint, "shade", counted)
    draw_overlay(GREY, [Layer(octahedron(0, 0, 3 + 0.01 * i), RED) for i in range(12)], FACES, K)
    assert sum(lit) == 12 * len(CORNERS)


def test_shadows_are_blurred_where_they_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    blurred: list[int] = []
    blur = cv2.GaussianBlur

    def counted(mask: np.ndarray, *rest: float) -> np.ndarray:
        blurred.append(mask.size)
        return blur(mask, *rest)  # pyright: ignore[reportCallIssue, reportArgumentType]

    monkeypatch.setattr(cv2, "GaussianBlur", counted)
    bodies = [octahedron(0.3 * i, 0, 4, 0.1) for i in range(20)]
    draw_side([Layer(body, RED) for body in bodies], FACES)
    assert len(blurred) == 20 and sum(blurred) < 3 * side.SIZE[0] * side.SIZE[1]
    # The same as a blur of all.
    points = np.concatenate(bodies).astype(np.float64)
    R, t = side.side_camera(points)
    here = side.backdrop()
    side.draw_shadow(here, bodies[0], FACES, 0.1, R, t)
    flat = bodies[0].astype(np.float64)
    flat[:, 1] = 0.1
    shape = rasterize(transform(flat, R, t), FACES, side.side_intrinsics(), side.SIZE).face >= 0
    shadow = blur(shape.astype(np.float32), (0, 0), 9)
    np.testing.assert_allclose(here, side.backdrop() * (1 - 0.28 * shadow[..., None]), atol=1e-6)
    assert shadow.max() > 0.1
