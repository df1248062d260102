"""The z-buffer against a slow and obvious one, and against closed forms."""

import numpy as np
import pytest
import trimesh

from dpmesh.errors import InputError
from dpmesh.render.rasterizer import NEAR, interpolate, rasterize

K = np.array([[90.0, 0, 31.5], [0, 90, 31.5], [0, 0, 1]])
SIZE = (64, 64)


def ray(i: int, j: int) -> np.ndarray:
    return np.linalg.solve(K, np.array([j, i, 1.0]))


def slow(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Ray against every triangle in 3D, pixel by pixel: no projection, no 1/z."""
    depth = np.full(SIZE, np.inf)
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    for i in range(SIZE[0]):
        for j in range(SIZE[1]):
            d = ray(i, j)
            p = np.cross(d, c - a)
            det = ((b - a) * p).sum(1)
            ok = np.abs(det) > 1e-14
            inverse = 1 / np.where(ok, det, 1)
            u = (-a * p).sum(1) * inverse
            q = np.cross(-a, b - a)
            v = (q @ d) * inverse
            t = ((c - a) * q).sum(1) * inverse
            hit = ok & (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
            if hit.any():
                depth[i, j] = t[hit].min()
    return depth


def test_a_sphere_and_its_closed_form() -> None:
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    vertices = np.asarray(ball.vertices, np.float32) + np.float32([0.03, -0.05, 2.0])
    faces = np.asarray(ball.faces, np.int32)
    drawn = rasterize(vertices, faces, K, SIZE)
    truth = slow(vertices, faces)
    covered = np.isfinite(truth)
    assert (
        np.isfinite(drawn.depth) != covered
    ).sum() <= 4  # a silhouette pixel may fall either way by rounding
    both = covered & np.isfinite(drawn.depth)
    assert np.abs(drawn.depth[both] - truth[both]).max() < 1e-5
    assert abs(drawn.depth[29, 33] - 1.5) < 0.02
    assert ((drawn.face >= 0) == np.isfinite(drawn.depth)).all()


def test_depth_and_weights_are_perspective_correct() -> None:
    # A floor that leans away: linear interpolation of z on the screen would be far off in the middle.
    quad = np.float32([[-1, 0.5, 1], [1, 0.5, 1], [1, -0.5, 6], [-1, -0.5, 6]])
    faces = np.int32([[0, 1, 2], [0, 2, 3]])
    drawn = rasterize(quad, faces, K, SIZE)
    covered = drawn.face >= 0
    assert covered.sum() > 500
    at = interpolate(drawn, faces, quad)[covered]
    rows, columns = np.nonzero(covered)
    expected = (
        np.stack([ray(i, j) for i, j in zip(rows, columns, strict=True)]) * drawn.depth[covered][:, None]
    )
    assert np.abs(at - expected).max() < 1e-4
    assert np.abs(at[:, 1] * 5 + at[:, 2] - 3.5).max() < 1e-4  # every pixel lies on the plane
    assert np.abs(drawn.bary[covered].sum(1) - 1).max() < 1e-6


def test_a_fronto_parallel_quad_covers_exactly_its_pixels() -> None:
    # x from -0.1 to 0.1 at 2 m: 31.5 -+ 4.5, so columns 27..36, corners on pixel centres included.
    quad = np.float32([[-0.1, -0.1, 2], [0.1, -0.1, 2], [0.1, 0.1, 2], [-0.1, 0.1, 2]])
    drawn = rasterize(quad.astype(np.float64) * [0.999, 0.999, 1], np.int32([[0, 1, 2], [0, 2, 3]]), K, SIZE)
    rows, columns = np.nonzero(drawn.face >= 0)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (28, 35, 28, 35)
    assert len(rows) == 64  # no hole along the diagonal
    assert (drawn.depth[drawn.face >= 0] == 2).all()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearest_wins_in_any_order(order: tuple[int, int]) -> None:
    near = np.float32([[-0.3, -0.3, 1], [0.3, -0.3, 1], [0, 0.4, 1]])
    far = near * np.float32([3, 3, 2])
    pair = [near, far]
    vertices = np.concatenate([pair[k] for k in order])
    drawn = rasterize(vertices, np.int32([[0, 1, 2], [3, 4, 5]]), K, SIZE)
    assert drawn.depth[30, 31] == 1
    assert drawn.face[30, 31] == order.index(0)
    assert np.isclose(drawn.depth[drawn.face == order.index(1)], 2).all()


def test_what_cannot_be_drawn_is_left_out() -> None:
    triangle = np.float32([[-0.3, -0.3, 1], [0.3, -0.3, 1], [0, 0.4, 1]])
    for bad in (NEAR / 2, -1.0, np.nan, np.inf):
        broken = triangle.copy()
        broken[1, 2] = bad
        assert (rasterize(broken, np.int32([[0, 1, 2]]), K, SIZE).face == -1).all()
    flat = triangle[[0, 0, 1]]
    assert np.isinf(rasterize(flat, np.int32([[0, 1, 2]]), K, SIZE).depth).all()
    assert (rasterize(triangle + np.float32([50, 0, 0]), np.int32([[0, 1, 2]]), K, SIZE).face == -1).all()
    huge = triangle * np.float32([1e6, 1e6, 1])
    assert (rasterize(huge, np.int32([[0, 1, 2]]), K, SIZE).face == 0).all()


def test_a_vertex_index_out_of_range_is_refused() -> None:
    for bad in (-1, 3, 2**32 + 2):  # the last is 2 in 32 bits
        with pytest.raises(InputError):
            rasterize(np.ones((3, 3), np.float32), np.int64([[0, 1, bad]]), K, SIZE)


def test_culling_leaves_the_image_of_a_closed_surface_as_it_is() -> None:
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    vertices = np.asarray(ball.vertices) @ np.diag([1.0, -1, -1]) + [
        0.1,
        0,
        3,
    ]  # a turn: still closed, outside out
    plain, culled = (
        rasterize(vertices, np.asarray(ball.faces), K, SIZE, cull=cull) for cull in (False, True)
    )
    assert all(np.array_equal(a, b) for a, b in zip(plain, culled, strict=True))
    inside_out = rasterize(vertices, np.asarray(ball.faces)[:, ::-1], K, SIZE, cull=True)
    assert (inside_out.depth[np.isfinite(plain.depth)] > plain.depth[np.isfinite(plain.depth)]).all()


def test_drawing_onto_an_image_is_drawing_together() -> None:
    rng = np.random.default_rng(0)
    vertices = rng.normal(0, 0.6, (60, 3)) + np.array([0, 0, 2.5])
    faces = rng.integers(0, 60, (40, 3))
    together = rasterize(vertices, faces, K, SIZE)
    first = rasterize(vertices, faces[:15], K, SIZE)
    then = rasterize(vertices, faces[15:], K, SIZE, onto=first, first=15)
    assert then is first and all(np.array_equal(a, b) for a, b in zip(together, then, strict=True))
