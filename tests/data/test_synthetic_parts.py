"""Parts of the generator: primitives, materials, clothes, accessories, the z-buffer, self-collision."""

import numpy as np
import pytest

from dpmesh.body.files import population_body
from dpmesh.data.poses import PoseBank
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.data.synthetic.accessories import Accessories, place_pieces
from dpmesh.data.synthetic.bodies import draw_betas
from dpmesh.data.synthetic.body import FastBody, matrices, rotvecs
from dpmesh.data.synthetic.clothes import Wardrobe, inside
from dpmesh.data.synthetic.materials import (
    NOISE,
    PLAIN,
    STRIPES,
    TABLE,
    between,
    material,
    noise_at,
    paint,
    pick,
    pick_each,
)
from dpmesh.data.synthetic.occluders import furniture, limb, put_before
from dpmesh.data.synthetic.primitives import Mesh, boxes, join, turned
from dpmesh.data.synthetic.scene import KEPT, cut_anywhere
from dpmesh.data.synthetic.self_collision import tangled
from dpmesh.data.synthetic.zbuffer import LOOSE, OTHER, PERSON, THING, Canvas
from dpmesh.render.rasterizer import rasterize
from dpmesh.render.shading import vertex_normals
from dpmesh.skeletons import JOINTS30, SMPL24

UPRIGHT = np.diag([1.0, -1.0, -1.0]).astype(np.float32)  # world, y up, to a level camera
K = np.array([[300.0, 0, 128], [0, 300, 128], [0, 0, 1]])
RED = material(PLAIN, np.array([1.0, 0, 0]), grain=0.0)


@pytest.fixture(scope="module")
def body() -> FastBody:
    return FastBody(population_body())


def cube(x: float, z: float, size: float) -> Mesh:
    return boxes(np.float32([[x, 0, z]]), np.float32([[size] * 3]), RED)


def test_solids_face_outward() -> None:
    mesh = boxes(np.float32([[1, 2, 3], [0, 0, 0]]), np.float32([[1, 2, 3], [1, 1, 1]]), RED)
    assert np.abs(vertex_normals(mesh.vertices, mesh.faces) - mesh.normals).max() < 1e-5
    assert np.allclose(mesh.vertices[:24].max(0), [1.5, 3, 4.5])
    vertices, faces = turned(np.array([-1.0, 0, 1]), np.array([1.0, 2, 1]), np.array([1.0, 2, 1]))
    normals = vertex_normals(vertices, faces)
    assert ((normals * vertices)[:, [0, 2]].sum(1) > 0).all()
    half, _ = turned(np.array([0.0, 1]), np.ones(2), np.ones(2), 8, (0.0, np.pi))
    assert half[:, 0].min() > -1e-6  # an arc from +z over +x to -z


def test_joined_meshes_keep_their_layers() -> None:
    rng = np.random.default_rng(0)
    parts = [furniture(rng), cube(0, 2, 1), furniture(rng)]
    whole = join(parts)
    first = 0
    for part in parts:
        for index in np.unique(part.outfit):
            face = first + int(np.flatnonzero(part.outfit == index)[0])
            at = whole.outfit[face]
            expected = part.paints[part.starts[index] : part.starts[index + 1]]
            assert np.array_equal(whole.paints[whole.starts[at] : whole.starts[at + 1]], expected)
        assert np.array_equal(
            whole.vertices[whole.faces[first : first + len(part.faces)]], part.vertices[part.faces]
        )
        first += len(part.faces)


def test_furniture_stands_before_the_person_and_covers_the_point() -> None:
    point = np.float32([0.2, 0.3, 4])
    for seed in range(40):
        rng = np.random.default_rng(seed)
        mesh = put_before(rng, furniture(rng), UPRIGHT, point, -1.0)
        assert mesh.vertices[:, 2].max() < max(4 - 0.1, 0.3 + np.ptp(mesh.vertices[:, 2]) + 1e-3)
        arm = limb(np.random.default_rng(seed), point, 300.0, 256)
        raster = rasterize(arm.vertices, arm.faces, K, (256, 256))
        assert (raster.face >= 0).any() and raster.depth.min() < 4


def test_materials() -> None:
    red = paint(NOISE, RED[None], 0, 0.3, -0.2, 0.1, 1.0)
    assert RED.shape == (20,) and np.allclose(red, [1, 0, 0])
    stripes = material(STRIPES, np.zeros(3), np.ones(3), pitch=0.1, duty=0.3, grain=0.0)
    shades = []
    for x in np.linspace(0, 1, 487, endpoint=False):
        shades.append(paint(NOISE, stripes[None], 0, x, 0.0, 0.0, 1.0)[0])
    assert set(np.round(shades, 3)) == {0, 1} and abs(np.mean(shades) - 0.3) < 0.02
    assert np.allclose(
        paint(NOISE, stripes[None], 0, 0.01, 0.0, 0.0, 0.0), 0.5
    )  # far away stripes run together
    assert abs(noise_at(NOISE, 0.3, 0.7) - noise_at(NOISE, 1.3, -0.3)) < 1e-3  # tileable
    assert noise_at(NOISE, 5 / TABLE, 9 / TABLE) == pytest.approx(NOISE[9, 5], abs=1e-3)
    rng = np.random.default_rng(0)
    drawn = np.bincount([pick(rng, (0.2, 0.5, 0.3)) for _ in range(3000)]) / 3000
    assert np.abs(drawn - [0.2, 0.5, 0.3]).max() < 0.04


def test_the_short_ways_draw_what_numpy_draws() -> None:
    """A sample of a seed stays what it was."""
    ours, numpys, shares = np.random.default_rng(3), np.random.default_rng(3), (0.2, 0.5, 0.3)
    for _ in range(50):
        assert np.array_equal(pick_each(ours, shares, 4), numpys.choice(3, 4, p=shares))
        assert pick(ours, shares) == numpys.choice(3, p=shares)
        assert between(ours, -0.3, 2.7) == numpys.uniform(-0.3, 2.7)


def test_layers_end_in_skin_and_thicken_outward(body: FastBody) -> None:
    wardrobe, rng = Wardrobe(body), np.random.default_rng(0)
    normals = vertex_normals(body.template, body.faces)
    hands = np.flatnonzero(body.part == SMPL24.index("L_Hand"))
    nose = body.joints(np.zeros((1, 10), np.float32), np.eye(3, dtype=np.float32)[None, None].repeat(24, 1))[
        0
    ][0, 24]
    skirts, bare_hands, bare_noses = set(), 0, 0
    for _ in range(60):
        outfit = wardrobe.dress(rng)
        skirts.add(outfit.skirt)
        last = len(outfit.paints) - 1
        assert all(inside(outfit.regions, last, *point) > 0 for point in body.template[::200])

        def layer(point: np.ndarray, outfit=outfit) -> int:
            return next(k for k in range(len(outfit.paints)) if inside(outfit.regions, k, *point) > 0)

        bare_hands += all(layer(body.template[v]) == last for v in hands[::20])
        bare_noses += layer(nose) == last
        thick = wardrobe.clothed(outfit, body.template) - body.template
        along = (thick * normals).sum(1)
        assert (
            (along >= -1e-6).all()
            and np.abs(thick - along[:, None] * normals).max() < 1e-6
            and along.max() < 0.15
        )
        for v in range(0, len(along), 331):  # the outermost layer alone, each vertex by itself
            k, (x, y, z) = layer(body.template[v]), body.template[v]
            crease = noise_at(NOISE, 1.3 * (x + 0.7 * z), 0.6 * y + 0.3 * z)
            thickness, more, below, folds = outfit.swell[k]
            full = max(thickness + more * max(below - y, 0) + folds * crease, 0)
            rise = min(1, 0.3 + inside(outfit.regions, k, x, y, z) / 0.02)
            assert along[v] == pytest.approx(full * rise, abs=2e-6)
    assert skirts == {"none", "skirt", "dress", "coat"} and bare_hands > 50 and bare_noses > 50


def test_loose_things_move_with_the_body(body: FastBody) -> None:
    accessories, wardrobe, rng = Accessories(body), Wardrobe(body), np.random.default_rng(0)
    betas = np.zeros((1, 10), np.float32)
    still = np.eye(3, dtype=np.float32)[None, None].repeat(24, 1)
    turn = matrices(np.float32([0.3, 1.1, -0.4]))
    whole = still.copy()
    whole[:, 0] = turn
    shaped, rest = body.shaped(betas[0]), body.rest(betas)[0]
    total, skirts = 0, 0
    for _ in range(80):
        outfit = wardrobe.dress(rng)
        pieces = accessories.pieces(rng, outfit, shaped, rest)
        at_rest = place_pieces(pieces, body.transforms(betas, still)[0], np.zeros(3, np.float32))
        turned_ = place_pieces(pieces, body.transforms(betas, whole)[0], np.float32([1, 2, 3]))
        for piece, a, b in zip(pieces, at_rest, turned_, strict=True):
            assert np.abs(piece.weights.sum(1) - 1).max() < 1e-5 and piece.weights.min() >= 0
            assert np.abs(a.vertices - piece.vertices).max() < 1e-5
            moved = (piece.vertices - rest[0]) @ turn.T + rest[0] + np.float32([1, 2, 3])
            assert np.abs(b.vertices - moved).max() < 1e-4
        total += len(pieces)
        if (
            outfit.skirt == "skirt"
        ):  # it is around the hips, and nothing of the thighs above its hem is outside it
            skirts += 1
            skirt = pieces[0].vertices
            hips = shaped[(np.abs(shaped[:, 1] - rest[1, 1]) < 0.03) & (np.abs(shaped[:, 0]) < 0.3)]
            near = skirt[np.abs(skirt[:, 1] - rest[1, 1]) < 0.03]
            assert near[:, 0].max() > hips[:, 0].max() and near[:, 2].max() > hips[:, 2].max() - 0.01
    assert total > 30 and skirts > 2


def test_the_canvas_is_one_z_buffer() -> None:
    canvas = Canvas(K, 256, most=1.0)
    meshes = [
        (cube(0, 3, 1), PERSON),
        (cube(0.4, 2.2, 0.5), THING),
        (cube(-0.5, 3.2, 0.6), OTHER),
        (cube(0.1, 2, 0.1), LOOSE),
    ]
    assert all(canvas.add(mesh, who) for mesh, who in meshes)
    whole = canvas.mesh()
    plain = rasterize(whole.vertices, whole.faces, K, (256, 256))
    assert np.array_equal(plain.depth, canvas.raster.depth) and np.array_equal(plain.face, canvas.raster.face)
    visible = plain.face >= 0
    assert np.array_equal(plain.bary[visible], canvas.raster.bary[visible])
    owners = np.repeat([who for _, who in meshes], [len(mesh.faces) for mesh, _ in meshes])
    assert np.array_equal(canvas.owner, np.where(visible, owners[plain.face], 0))


def test_what_hides_too_much_is_left_out() -> None:
    canvas = Canvas(K, 256, most=0.6)
    canvas.add(cube(0, 3, 1), PERSON)
    before = canvas.raster.depth.copy()
    assert not canvas.add(cube(0, 1.5, 0.9), THING) and np.array_equal(canvas.raster.depth, before)
    assert not canvas.add(cube(0.3, 2.2, 0.3), THING, most=0.01)
    assert canvas.add(cube(0.3, 2.2, 0.3), THING, most=0.5)
    assert canvas.add(cube(0, 1.5, 0.9), LOOSE)  # the person's own
    mask = np.zeros((256, 256), bool)
    assert not canvas.cover(mask) and not canvas.add(cube(30, 3, 1), THING)  # nothing of it is in the image
    assert canvas.beyond(np.float32([[9, 0, 1]])) and not canvas.beyond(np.float32([[9, 0, 1], [-9, 0, 1]]))


def test_self_collisions_are_detected(body: FastBody) -> None:
    bank = PoseBank.load("train")
    still = np.eye(3, dtype=np.float32)[None, None].repeat(24, 1)
    joints = body.joints(np.zeros((1, 10), np.float32), still)[0]
    j = JOINTS30.index
    assert not tangled(joints).any()
    through = joints.repeat(3, 0)
    through[0, j("L_Hand")] = joints[0, j("Spine")]  # a hand in the belly
    through[1, [j("L_Elbow"), j("L_Hand")]] = joints[0, [j("Spine")]] + np.float32(
        [[0.3, 0, 0], [-0.3, 0, 0]]
    )
    through[2, j("L_Ankle")], through[2, j("R_Ankle")] = joints[0, j("R_Ankle")], joints[0, j("L_Ankle")]
    assert tangled(through).all()
    on_hip = joints.copy()
    on_hip[0, j("L_Hand")] = joints[0, j("L_Hip")] + np.float32([0.12, 0.05, 0.05])
    assert not tangled(on_hip).any()
    shares = []
    for exchange in (False, True):
        poses = bank.sample(np.random.default_rng(0), 1500, exchange=exchange)
        shares.append(tangled(body.joints(np.zeros((1500, 10), np.float32), matrices(poses))[0]).mean())
    assert shares[0] < 0.03 < shares[1] < 0.1
    batch = SyntheticPeople(0, bank, population_body()).keypoints_only(np.random.default_rng(0), 1500)
    assert tangled(batch["joints3d"]).mean() < 0.003


def test_rotations_and_their_vectors() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((500, 3))
    vectors *= (rng.uniform(0, np.pi - 1e-3, 500) / np.linalg.norm(vectors, axis=1))[:, None]
    assert np.abs(rotvecs(matrices(vectors)) - vectors).max() < 2e-3
    assert (
        np.allclose(rotvecs(UPRIGHT[None]), [[np.pi, 0, 0]])
        and not rotvecs(np.eye(3, dtype=np.float32)[None]).any()
    )


def test_a_cut_keeps_one_side() -> None:
    rng = np.random.default_rng(0)
    joints = rng.standard_normal((400, 30, 3)).astype(np.float32)
    kept = cut_anywhere(rng, joints)
    count = kept.sum(1)
    assert count.min() == 4 and count.max() <= 30 * KEPT[1] + 1 and len(np.unique(count)) > 20
    for points, keep in zip(joints, kept, strict=True):
        sides = [
            (points[keep, axis].max() < points[~keep, axis].min())
            or (points[keep, axis].min() > points[~keep, axis].max())
            for axis in (0, 1)
        ]
        assert any(sides)


def test_shapes_reach_from_small_to_heavy(body: FastBody) -> None:
    betas = draw_betas(np.random.default_rng(0), 3000)
    heights = [float(np.ptp(body.shaped(b)[:, 1])) for b in betas[:400]]
    assert min(heights) < 1.42 and max(heights) > 1.92 and 1.66 < np.median(heights) < 1.76
    assert betas[:, 3].min() >= -1.8 and betas[:, 3].max() > 3
    assert betas[:, 1].std() > 1.25  # men and women: wider than the body's own population
