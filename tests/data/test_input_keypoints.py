"""Input joints: the fixed noise against the specification's table by distance alone, and each defect by its switch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpmesh.data.annotation import COCO_IN_30, Annotation, with_neighbours
from dpmesh.data.augment import AugmentConfig, View
from dpmesh.data.input_keypoints import detect, tight_area
from dpmesh.data.noise import posefix
from dpmesh.geometry.crop import Crop
from dpmesh.skeletons import COCO17, JOINTS30

N = 6000
ONES = np.ones(30, np.float32)
NOISE = AugmentConfig(p_drop_joint=0.0)
# sigma; then jitter n>10, miss n>10, inversion, swap crowded (n<=15, o>=3) / normal.
ROWS = {"L_Shoulder": (0.079, 0.15, 0.05, 0.03, 0.06), "R_Wrist": (0.062, 0.15, 0.10, 0.03, 0.06),
        "L_Hip": (0.107, 0.20, 0.10, 0.06, 0.03), "R_Knee": (0.087, 0.10, 0.10, 0.06, 0.03),
        "L_Ankle": (0.089, 0.10, 0.05, 0.06, 0.03), "Nose": (0.026, 0.10, 0.02, 0.00, 0.01)}  # fmt: skip


@pytest.mark.parametrize("in_place", [False, True])
def test_rates_and_radii_of_each_error_kind_match_the_table(in_place: bool) -> None:
    """Candidates are so far apart that a point's position identifies its kind of error."""
    spot = np.stack([np.arange(17) % 5 * 3000.0, np.arange(17) // 5 * 3000.0], 1)
    other = spot + 100000
    points = np.tile(spot, (N, 1, 1))
    flags, near = np.ones((N, 17)), np.ones((N, 1, 17))
    noisy = posefix(
        np.random.default_rng(1), points, flags, np.full(N, 1e4), np.tile(other, (N, 1, 1, 1)), near, in_place
    ).points
    for name, (sigma, jitter, miss, inversion, swap) in ROWS.items():
        joint, radius = COCO17.index(name), sigma * 100
        d85, d50, d10 = 1.14024 * radius, 2.35482 * radius, 4.29193 * radius
        partner = COCO17.flip[joint]
        truths = {"own": spot[joint], "others": other[joint]}
        if partner != joint:
            truths |= {"partner": spot[partner], "others' partner": other[partner]}
        away = {k: np.linalg.norm(noisy[:, joint] - v, axis=1) for k, v in truths.items()}
        if in_place and partner != joint and partner < joint:
            continue  # its partner is where noise has put it: test_noise.py
        kinds = {
            "good": away["own"] < d85,
            "jitter": (away["own"] >= d85) & (away["own"] < d50),
            "miss": np.any([(a >= d50) & (a < d10) for a in away.values()], axis=0),
            "inversion": away.get("partner", np.full(N, np.inf)) < d50,
            "swap": (away["others"] < d50) | (away.get("others' partner", np.full(N, np.inf)) < d50),
        }
        wanted = {"jitter": jitter, "miss": miss, "inversion": inversion, "swap": swap}
        if partner == joint:
            wanted = {k: v / 0.99 for k, v in wanted.items()}  # the nose cannot be inverted: renormalised
        wanted["inversion"] = inversion
        wanted["good"] = 1 - sum(wanted.values())
        assert np.sum(list(kinds.values()), axis=0).tolist() == [1] * N, name
        for kind, share in wanted.items():
            slack = 4.5 * np.sqrt(share * (1 - share) / N) + 1e-3
            assert abs(kinds[kind].mean() - share) < slack, (name, kind, kinds[kind].mean(), share)
        inner = away["own"][kinds["good"]] / d85  # uniform in radius
        assert abs(inner.mean() - 0.5) < 0.02 and abs((inner < 0.25).mean() - 0.25) < 0.03


def someone(flip: bool) -> tuple[Annotation, View, np.ndarray]:
    rng = np.random.default_rng(0)
    joints = rng.uniform(120, 280, (30, 2)).astype(np.float32)
    K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    person = Annotation("x/1", Path(), (640, 480), np.array([110.0, 110, 290, 290]), K, joints, ONES)
    view = View(Crop(100.0, 100.0, 200.0), K, flip)
    return person, view, view.swap(view.pixels(joints), JOINTS30)


def test_neighbours_are_mirrored_with_the_person() -> None:
    """Defect 1. By the noise kernel's input: its neighbours must be the person's own, mirrored like it."""
    import dpmesh.data.input_keypoints as module

    taken: list[tuple[np.ndarray, np.ndarray]] = []
    kernel = module.posefix

    def spy(rng, points, flags, area, neighbours, near, in_place):  # pyright: ignore
        taken.append((np.array(neighbours[0]), np.array(near[0])))
        return kernel(rng, points, flags, area, neighbours, near, in_place)

    person, view, joints = someone(flip=True)
    near = person.joints2d[COCO_IN_30][None] + np.float32([7, 5])
    flags = np.ones((1, 17), np.float32)
    flags[0, COCO17.index("L_Knee")] = 0
    near[flags == 0] = 0
    person = replace(person, neighbours=near, neighbour_flags=flags)
    module.posefix = spy
    try:
        for as_published in (False, True):
            detect(
                np.random.default_rng(0),
                person,
                view,
                joints,
                ONES,
                replace(NOISE, as_published=as_published),
            )
    finally:
        module.posefix = kernel
    fixed, published = taken
    off = fixed[0][0] - joints[COCO_IN_30]
    shown = fixed[1][0] > 0
    assert np.allclose(off[shown], np.array([-7, 5]) * 1.28, atol=1e-3)
    assert shown.tolist() == [name != "R_Knee" for name in COCO17.joints]  # defect 2: the mirrored left knee
    assert published[1].all()
    # Unmirrored, by the map of the mirrored image, whose window's middle is 640 - 1 - 200.
    assert np.allclose(published[0][0, 0], (near[0, 0] - [439, 200]) * 1.28 + 128, atol=1e-3)


def test_unlabelled_joints_are_not_visible_and_unlabelled_neighbours_have_no_effect() -> None:
    person, view, joints = someone(flip=False)
    valid = ONES.copy()
    valid[[JOINTS30.index("L_Knee"), JOINTS30.index("Torso")]] = 0
    person = replace(person, joints2d_valid=valid)
    for seed in range(20):
        points, visible = detect(
            np.random.default_rng(seed), person, view, joints * valid[:, None], valid, NOISE
        )
        assert visible[JOINTS30.index("L_Knee")] == 0 and (points[visible == 0] == 0).all()
        beyond = [JOINTS30.index(n) for n in ("Neck", "Head_top", "Chest")]
        assert np.allclose(points[beyond], joints[beyond])  # not COCO's: never disturbed


def test_visibility_is_decided_after_the_noise() -> None:
    """Defect 4: a joint that noise has moved out of the crop is not visible; as published it is."""
    person, view, joints = someone(flip=False)
    corner = joints.copy()
    corner[:] = np.linspace(2, 60, 30)[:, None]
    outside = dict.fromkeys((False, True), 0)
    for seed in range(200):
        for as_published in (False, True):
            config = replace(NOISE, as_published=as_published)
            points, visible = detect(np.random.default_rng(seed), person, view, corner, ONES, config)
            outside[as_published] += int(((points < 0).any(1) & (visible > 0)).sum())
    assert outside[False] == 0 and outside[True] > 50


def test_a_middle_pelvis_follows_the_hips_and_a_detector_is_taken_as_it_is() -> None:
    person, view, joints = someone(flip=True)
    person = replace(person, middle_pelvis=True)
    points, visible = detect(np.random.default_rng(3), person, view, joints, ONES, NOISE)
    hips = points[[1, 2]]
    assert (
        visible[0] == 1
        and np.allclose(points[0], hips.mean(0), atol=1e-3)
        and not np.allclose(points[0], joints[0])
    )
    detected = np.concatenate([person.joints2d + 3, np.full((30, 1), 0.9)], 1).astype(np.float32)
    detected[JOINTS30.index("L_Wrist")] = 0
    points, visible = detect(
        np.random.default_rng(3), replace(person, detected=detected), view, joints, ONES, NOISE
    )
    assert visible[JOINTS30.index("R_Wrist")] == 0 and visible.sum() == 29  # mirrored with the person
    assert np.allclose(points[0], joints[0] + [-3 * 1.28, 3 * 1.28], atol=1e-3)


def test_noise_scales_with_the_annotated_box_and_not_with_the_labelled_joints() -> None:
    """The box is 300 × 240 px of the image, partly outside it: 72,000 px², times 1.28² in the crop. With one labelled
    joint the extent is nothing, and there would be no noise."""
    person, view, joints = someone(flip=False)
    nose = JOINTS30.index("Nose")
    only = np.zeros(30, np.float32)
    only[nose] = 1
    person = replace(person, annotated=np.array([-20.0, 60, 280, 300]), joints2d_valid=only)
    assert tight_area(person, view) == pytest.approx(72_000 * 1.28**2)
    assert tight_area(replace(person, joints2d_valid=ONES), view) == tight_area(person, view)
    off = []
    for seed in range(400):
        points, visible = detect(np.random.default_rng(seed), person, view, joints, only, NOISE)
        off += [np.linalg.norm(points[nose] - joints[nose])] if visible[nose] else []
    radius = 0.026 * np.sqrt(72_000) * 1.28
    # good to 1.14, jitter to 2.35, miss to 4.29 radii (0.69, 0.15 and 0.15 of them), uniform each
    assert np.max(off) > 3.5 * radius and np.mean(off) == pytest.approx(1.16 * radius, rel=0.1)
    bare = Annotation("x/1", Path(), (640, 480), person.box, person.K, person.joints2d, ONES)
    assert bare.annotated.tolist() == person.box.tolist()  # where no other box is known


def test_neighbours_overlap_by_their_annotated_boxes() -> None:
    """The joints of the two lie apart; their boxes overlap by 20 × 100 of 180 × 100 px, an IoU of a ninth."""
    person, _, _ = someone(flip=False)

    def at(x: float, box: list[float]) -> Annotation:
        joints = np.stack([np.linspace(x, x + 10, 30), np.linspace(100, 200, 30)], 1).astype(np.float32)
        return replace(person, joints2d=joints, annotated=np.array(box))

    left, right = at(110, [100.0, 100, 200, 200]), at(260, [180.0, 100, 280, 200])
    assert [len(p.neighbours) for p in with_neighbours([left, right])] == [1, 1]
    apart = replace(right, annotated=np.array([190.0, 100, 290, 200]))
    assert [len(p.neighbours) for p in with_neighbours([left, apart])] == [0, 0]
    near = at(112, [220.0, 100, 280, 200])  # the joints of the two do overlap
    assert [len(p.neighbours) for p in with_neighbours([left, near])] == [0, 0]


def test_joints_are_dropped_at_the_rate_asked_for() -> None:
    person, view, joints = someone(flip=False)
    config = replace(NOISE, noise=False, p_drop_joint=0.3)
    rate = np.mean(
        [detect(np.random.default_rng(k), person, view, joints, ONES, config)[1] for k in range(400)]
    )
    assert abs(rate - 0.7) < 0.02
