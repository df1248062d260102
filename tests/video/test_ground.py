"""A floor that is recovered from people who walk on it, and feet that keep their places."""

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from dpmesh.geometry.floor import FEET
from dpmesh.skeletons import JOINTS30
from dpmesh.video.feet import planted, runs
from dpmesh.video.ground import find_ground, own_ground, upright
from dpmesh.video.stance import CHANGE, cheapest, contacts
from dpmesh.video.tracks import ROW_SHAPES, Tracks

FPS = 30.0
PITCH, HEIGHT = 0.25, 1.6
"""Of the camera: radians downwards, metres above the floor."""


def walk(noise: float = 0.0, curve: bool = True) -> tuple[Tracks, np.ndarray]:
    """Someone who walks; each foot stands for half a second and swings for half a second. Also which feet stand."""
    count = 120
    time = np.arange(count) / FPS
    random = np.random.default_rng(0)
    joints = np.zeros((count, 30, 3))  # world: x right, y up, z towards the camera; floor at 0
    heading = 0.8 * time if curve else np.zeros(count)
    x, z = np.cumsum(np.cos(heading)) / FPS, -4 + np.cumsum(np.sin(heading)) / FPS
    centre = np.stack([x - x.mean(), np.full(count, 0.95), z], 1)
    for joint in range(30):
        joints[:, joint] = centre
    joints[:, JOINTS30.index("Neck"), 1] = 1.5
    stands = np.zeros((count, 4), bool)
    for side in (0, 1):
        phase = np.floor(time - 0.5 * side + 10).astype(int)
        for step in np.unique(phase):
            rows = np.flatnonzero(phase == step)
            share = (time - 0.5 * side + 10)[rows] - step
            here = centre[rows[len(rows) // 4]] * [1, 0, 1] + [0.1 * (2 * side - 1), 0, 0]
            later = centre[min(rows[-1] + len(rows) // 4, count - 1)] * [1, 0, 1] + [
                0.1 * (2 * side - 1),
                0,
                0,
            ]
            swing = np.clip((share - 0.5) / 0.5, 0, 1)[:, None]
            place = here + (later - here) * (3 * swing**2 - 2 * swing**3)
            lift = 0.15 * np.sin(np.pi * swing[:, 0])
            for k, sole in ((2 * side, 0.08), (2 * side + 1, 0.02)):
                joints[rows, FEET[k]] = place + np.stack([0 * lift, sole + lift, 0 * lift], 1)
                joints[rows, FEET[k]] += [0, 0, 0.12 * (k % 2)]
                stands[rows, k] = share < 0.5
    camera = Rotation.from_euler("x", PITCH).as_matrix() @ np.diag([1.0, -1, -1])
    points = (joints - [0, HEIGHT, 0]) @ camera.T + random.normal(scale=noise, size=(count, 1, 3))
    rows = {name: np.zeros((count, *shape)) for name, shape in ROW_SHAPES.items()}
    rows |= {"joints3d": points.astype(np.float32), "time": time, "frame": np.arange(count)}
    kinds = {
        "frame": np.int64,
        "track": np.int64,
        "interpolated": np.bool_,
        "contacts": np.bool_,
        "time": np.float64,
    }
    columns = {name: value.astype(kinds.get(name, np.float32)) for name, value in rows.items()}
    tracks = Tracks(
        **columns,
        numbers=np.zeros(1, np.int64),
        betas=np.zeros((1, 10), np.float32),
        K=np.diag([1000.0, 1000, 1]),
        fps=FPS,
        image_size=(720, 1280),
        frames=count,
    )
    return tracks, stands


def test_the_floor_of_a_walk() -> None:
    tracks, _ = walk()
    ground = find_ground(tracks)
    assert ground is not None
    true_up = Rotation.from_euler("x", PITCH).as_matrix() @ np.diag([1.0, -1, -1]) @ [0, 1, 0]
    assert np.degrees(np.arccos(ground.up @ true_up)) < 2.5
    np.testing.assert_allclose(ground.heights(np.zeros(3)), HEIGHT, atol=0.12)
    world = ground.to_world(tracks.joints3d.astype(np.float64))
    np.testing.assert_allclose(np.median(world[:, JOINTS30.index("Neck"), 1]), 1.5, atol=0.1)
    np.testing.assert_allclose(np.linalg.det(ground.rotation), 1)


def test_contacts_and_feet_that_stand() -> None:
    tracks, stands = walk(noise=0.004)
    ground = find_ground(tracks)
    assert ground is not None
    rows = np.arange(len(tracks.frame))
    touching = contacts(tracks, rows, ground)
    assert (touching & ~stands).sum() <= 0.2 * stands.sum() and (touching & stands).sum() > 0.5 * stands.sum()
    change = planted(tracks, rows, touching, ground)
    moved = replace(tracks, joints3d=(tracks.joints3d + change[:, None]).astype(np.float32))

    def slide(of: Tracks) -> float:
        steps = np.linalg.norm(np.diff(of.joints3d[:, FEET], axis=0), axis=-1)
        return float(np.quantile(steps[touching[1:] & touching[:-1]], 0.9))

    assert slide(moved) < 0.010 and slide(moved) < slide(tracks)
    assert np.abs(change).max() < 0.15


def test_a_track_of_one_frame_does_not_stand() -> None:
    tracks, _ = walk()
    ground = find_ground(tracks)
    assert ground is not None
    assert not contacts(tracks, np.arange(1), ground).any()


def test_nobody_stands() -> None:
    tracks, _ = walk()
    flying = replace(
        tracks, joints3d=(tracks.joints3d + np.arange(120)[:, None, None] * 0.1).astype(np.float32)
    )
    assert find_ground(flying) is None
    assert find_ground(tracks.with_rows(np.arange(3))) is None


def test_runs() -> None:
    assert runs(np.array([True, True, False, True])) == [(0, 2), (3, 4)] and runs(np.zeros(3, bool)) == []


def test_a_foot_stands_through_a_tremor_and_somebody_always_stands() -> None:
    """Costs of: no foot, left, right, both."""
    left, right = np.array([9.0, 0, 9, 9]), np.array([9.0, 9, 0, 9])
    costs = np.stack([left] * 6 + [right] * 6)
    costs[3] = [9, 0.8 * CHANGE, 0, 9]  # a frame in which the other foot is a little cheaper
    assert cheapest(costs).tolist() == [1] * 6 + [2] * 6
    tracks, stands = walk(noise=0.004)
    ground = find_ground(tracks)
    assert ground is not None
    touching = contacts(tracks, np.arange(len(tracks.frame)), ground)
    assert touching.reshape(-1, 2, 2).any((1, 2)).mean() > 0.95
    swings = ~stands.reshape(-1, 2, 2).any(2)
    assert touching.reshape(-1, 2, 2).any(2)[swings].mean() < 0.2


def test_up_is_from_the_feet_to_the_neck_of_those_who_do_not_bend() -> None:
    tracks, _ = walk()
    true_up = Rotation.from_euler("x", PITCH).as_matrix() @ np.diag([1.0, -1, -1]) @ [0, 1, 0]
    bent = tracks.joints3d.copy()
    bent[:80, JOINTS30.index("Neck")] += np.array([0.9, 0.3, 0], np.float32)  # two frames of three
    up = upright(replace(tracks, joints3d=bent))
    assert up is not None and np.degrees(np.arccos(up @ true_up)) < 4
    sitting = tracks.joints3d.copy()
    for side in "LR":
        sitting[:, JOINTS30.index(f"{side}_Knee")] += np.array([0, 0, 0.9], np.float32)
    assert upright(replace(tracks, joints3d=sitting)) is None


def test_most_feet_decide_which_level_is_the_floor() -> None:
    """Somebody stands on a wall of 1.5 m for a third of the time, as long as nobody else is there."""
    tracks, stands = walk()
    up = Rotation.from_euler("x", PITCH).as_matrix() @ np.diag([1.0, -1, -1]) @ [0, 1, 0]
    raised = tracks.joints3d + (np.arange(120) < 40)[:, None, None] * (1.5 * up).astype(np.float32)
    both = replace(tracks, joints3d=raised)
    ground = find_ground(both)
    assert ground is not None
    np.testing.assert_allclose(ground.heights(np.zeros(3)), HEIGHT, atol=0.2)
    rows = np.arange(120)
    touching = contacts(both, rows, ground)
    assert touching[:38].any() and (touching & stands)[:38].sum() > 0.5 * stands[:38].sum()
    assert np.abs(planted(both, rows, touching, ground)[:35]).max() < 0.3  # they stay on the wall


def test_feet_keep_their_places_without_a_floor() -> None:
    tracks, _ = walk(noise=0.004)
    rows = np.arange(120)
    level = own_ground(tracks, rows)
    assert level is not None
    touching = contacts(tracks, rows, level)
    change = planted(tracks, rows, touching, None)
    steps = np.linalg.norm(np.diff(tracks.joints3d[:, FEET] + change[:, None], axis=0), axis=-1)
    assert np.quantile(steps[touching[1:] & touching[:-1]], 0.9) < 0.010


def test_a_change_of_depth_lasts_between_contacts() -> None:
    """The floor asks for another depth while feet stand: in the air the change is not taken back at once."""
    tracks, _ = walk()
    ground = find_ground(tracks)
    assert ground is not None
    higher = replace(ground, translation=ground.translation + np.array([0, 0.1, 0]))
    touching = contacts(tracks, np.arange(120), ground)
    touching[40:80] = False
    change = planted(tracks, np.arange(120), touching, higher)
    size = np.linalg.norm(change, axis=1)
    assert size[[20, 100]].min() > 0.09 and size[40:80].min() > 0.05
    assert np.linalg.norm(np.diff(change, axis=0), axis=1).max() < 0.015
