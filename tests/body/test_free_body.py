"""The shipped body: symmetric, closed, human, and with its left on the left."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from dpmesh.body.files import REGRESSORS, BodyArrays, free_body, population_body
from dpmesh.skeletons import JOINTS30, SMPL24

MIRROR = np.array([-1, 1, 1], np.float32)


@pytest.fixture(scope="module")
def body() -> BodyArrays:
    return free_body()


@pytest.fixture(scope="module")
def image(body: BodyArrays) -> np.ndarray:
    """Index of every vertex's mirror image."""
    distance, nearest = cKDTree(body.v_template).query(body.v_template * MIRROR)
    assert distance.max() == 0
    np.testing.assert_array_equal(nearest[nearest], np.arange(len(nearest)))
    return nearest


def test_size(body: BodyArrays) -> None:
    assert 6800 <= len(body.v_template) <= 7000
    assert len(body.v_template) != 6890  # nothing may take it for SMPL's mesh
    assert 1.65 < np.ptp(body.v_template[:, 1]) < 1.8
    assert np.abs(body.J_regressor[0] @ body.v_template).max() < 0.02  # the pelvis is the origin


def test_skin_is_closed_and_turned_outwards(body: BodyArrays) -> None:
    f, v = body.faces, body.v_template.astype(np.float64)
    directed = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])
    pairs, counts = np.unique(directed, axis=0, return_counts=True)
    assert counts.max() == 1  # consistent winding
    assert {(a, b) for a, b in pairs.tolist()} == {(b, a) for a, b in pairs.tolist()}  # no border
    volume = np.einsum("fc,fc->", v[f[:, 0]], np.cross(v[f[:, 1]], v[f[:, 2]])) / 6
    assert 0.05 < volume < 0.09  # cubic metres, positive: outwards


def test_left_and_right_are_mirror_images(body: BodyArrays, image: np.ndarray) -> None:
    flip = list(SMPL24.flip)
    mirrored = {tuple(sorted(face)) for face in image[body.faces].tolist()}
    assert mirrored == {tuple(sorted(face)) for face in body.faces.tolist()}
    np.testing.assert_allclose(body.weights[image][:, flip], body.weights, atol=1e-6)
    np.testing.assert_allclose(body.shapedirs[image] * MIRROR[:, None], body.shapedirs, atol=2e-4)
    np.testing.assert_allclose(body.J_regressor[flip][:, image], body.J_regressor, atol=1e-6)
    bends = body.posedirs.reshape(-1, 3, 23, 3, 3)
    sign = np.einsum("c,a,b->cab", MIRROR, MIRROR, MIRROR)[:, None]
    flipped = bends[image][:, :, [j - 1 for j in flip[1:]]] * sign
    np.testing.assert_allclose(flipped, bends, atol=2e-4)


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressor_rows(body: BodyArrays, image: np.ndarray, name: str) -> None:
    rows = body.regressors[name]
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-5)
    assert rows.min() >= 0  # a joint is a mean of skin points: it cannot leave the body's hull
    np.testing.assert_allclose(rows[list(REGRESSORS[name].flip)][:, image], rows, atol=1e-6)
    points = dict(zip(REGRESSORS[name].joints, rows @ body.v_template, strict=True))
    for joint, point in points.items():
        if joint[:2] == "L_":
            assert point[0] > 0.01, joint  # the subject's left is +x
        elif joint[:2] != "R_":
            assert abs(point[0]) < 1e-5, joint
    assert points["L_Wrist"][0] > points["L_Elbow"][0] > points["L_Shoulder"][0]
    assert points["Nose"][1] > points["L_Hip"][1] > points["L_Knee"][1] > points["L_Ankle"][1]
    assert points["Nose"][2] > 0.08  # it faces along +z


def test_the_sets_agree(body: BodyArrays) -> None:
    np.testing.assert_array_equal(body.regressors["joints30"][:24], body.J_regressor)
    chain = body.J_regressor @ body.v_template
    for name, limit in (("h36m17", 0.01), ("coco17", 0.05)):
        points = body.regressors[name] @ body.v_template
        for joint in ("L_Hip", "R_Knee", "L_Ankle", "R_Shoulder", "L_Elbow", "R_Wrist"):
            here = points[REGRESSORS[name].index(joint)]
            assert np.linalg.norm(here - chain[SMPL24.index(joint)]) < limit, joint
    top = body.regressors["joints30"][JOINTS30.index("Head_top")] @ body.v_template
    assert top[1] > body.v_template[:, 1].max() - 0.005


def test_joints_lie_inside_the_limbs(body: BodyArrays) -> None:
    """The winding number of the closed skin about every joint of the chain is one."""
    f, v = body.faces, body.v_template.astype(np.float64)
    a, b, c = v[f[:, 0]], v[f[:, 1]], v[f[:, 2]]
    for name, origin in zip(SMPL24.joints, body.J_regressor.astype(np.float64) @ v, strict=True):
        # Winding number by the solid angles of all triangles (Van Oosterom and Strackee 1983).
        x, y, z = a - origin, b - origin, c - origin
        lengths = [np.linalg.norm(p, axis=1) for p in (x, y, z)]
        above = np.einsum("fc,fc->f", x, np.cross(y, z))
        below = lengths[0] * lengths[1] * lengths[2]
        below += (x * y).sum(1) * lengths[2] + (y * z).sum(1) * lengths[0] + (z * x).sum(1) * lengths[1]
        winding = np.arctan2(above, below).sum() / (2 * np.pi)
        assert winding == pytest.approx(1, abs=1e-6), name


def test_shapes_have_the_spread_of_people(body: BodyArrays) -> None:
    people = np.random.default_rng(0).normal(size=(200, 10))
    heights = [np.ptp((body.v_template + body.shapedirs @ b)[:, 1]) for b in people]
    assert 0.06 < np.std(heights) < 0.12 and 1.65 < np.mean(heights) < 1.8


def test_the_mean_has_a_neutral_chest_and_the_populations_joints(body: BodyArrays) -> None:
    """A man's chest reaches as far forward as its own middle; the mean of both sexes does no further than a third."""
    other = population_body()
    for name, rows in [("chain", body.J_regressor), *body.regressors.items()]:
        for ours, theirs in ((body.v_template, other.v_template), (body.shapedirs, other.shapedirs)):
            moved = np.tensordot(rows, ours - theirs, 1)
            assert np.abs(moved).max() < 1e-5, name  # metres; shapes are stored as float16
    np.testing.assert_array_equal(body.weights, other.weights)

    def bulge(arrays: BodyArrays) -> float:
        """How far the sides of the chest stand out before its middle at the same height, metres."""
        v = arrays.v_template
        front = (v[:, 2] > 0.05) & (np.abs(v[:, 1] - 0.33) < 0.03)
        side, middle = (np.abs(v[:, 0]) > 0.06) & (np.abs(v[:, 0]) < 0.09), np.abs(v[:, 0]) < 0.015
        return float(v[front & side, 2].max() - v[front & middle, 2].mean())

    assert bulge(other) > 0.012 and bulge(body) < 0.5 * bulge(other)
