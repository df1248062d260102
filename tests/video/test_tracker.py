"""Numbers that people keep: when they move, cross, hide and come back."""

import numpy as np
import pytest

from dpmesh.video.tracker import MEMORY, Observation, Tracker, colours_of

FPS = 25


def person(
    x: float, y: float = 200.0, height: float = 180.0, colour: int = 0, score: float = 0.9
) -> Observation:
    """A standing person whose middle is at x, with the colour histogram of one of two kinds of clothes."""
    offsets = np.array(
        [(0, -0.44), (0.02, -0.46), (-0.02, -0.46), (0.04, -0.45), (-0.04, -0.45), (0.1, -0.32), (-0.1, -0.32),
         (0.13, -0.15), (-0.13, -0.15), (0.14, 0.0), (-0.14, 0.0), (0.07, 0.0), (-0.07, 0.0), (0.07, 0.22),
         (-0.07, 0.22), (0.07, 0.45), (-0.07, 0.45)]
    )  # fmt: skip
    joints = np.column_stack([offsets * height + [x, y], np.ones(17)])
    image = np.full((400, 640, 3), (200, 40, 40) if colour == 0 else (40, 60, 200), np.uint8)
    box = np.array([x - 0.2 * height, y - 0.5 * height, x + 0.2 * height, y + 0.5 * height])
    return Observation(box, joints, score, colours_of(image, joints, box))


def numbers(tracker: Tracker, people: list[Observation], frame: int) -> list[int | None]:
    return [None if track is None else track.number for track in tracker.update(people, frame / FPS)]


def test_two_people_who_cross_keep_their_numbers() -> None:
    """They pass through one another at the same size; only one is visible in the middle."""
    tracker = Tracker()
    first = numbers(tracker, [person(100, colour=0), person(500, colour=1)], 0)
    for frame in range(1, 80):
        left, right = 100 + 5 * frame, 500 - 5 * frame
        people = [person(left, colour=0), person(right, colour=1)]
        if abs(left - right) < 60:
            people = people[:1]
        got = numbers(tracker, people, frame)
        assert got == first[: len(got)], frame


def test_a_person_who_was_hidden_keeps_the_number_for_a_while() -> None:
    for gap, same in ((MEMORY - 0.3, True), (MEMORY + 0.5, False)):
        tracker = Tracker()
        for frame in range(10):
            (before,) = numbers(tracker, [person(300)], frame)
        (after,) = numbers(tracker, [person(300)], 10 + round(gap * FPS))
        assert (after == before) == same


def test_weak_detections_only_continue_tracks() -> None:
    tracker = Tracker()
    assert numbers(tracker, [person(300, score=0.3)], 0) == [None]
    numbers(tracker, [person(300)], 1)
    assert numbers(tracker, [person(302, score=0.3)], 2) == [0]


def test_a_weak_detection_is_not_somebody_who_was_lost() -> None:
    """Part of another person, near where somebody went behind a pillar."""
    tracker = Tracker()
    for frame in range(10):
        numbers(tracker, [person(300)], frame)
    assert numbers(tracker, [person(310, score=0.3)], 12) == [0]
    assert numbers(tracker, [person(310, score=0.3)], 25) == [None]
    assert numbers(tracker, [person(310)], 26) == [0]


def test_a_person_far_away_is_another() -> None:
    tracker = Tracker()
    numbers(tracker, [person(100)], 0)
    assert numbers(tracker, [person(500)], 1) == [1]


@pytest.mark.parametrize("hidden", [(5, 6, 11, 12), tuple(range(17))])
def test_colours_of_what_is_not_visible_count_for_nothing(hidden: tuple[int, ...]) -> None:
    seen = person(300)
    joints = seen.joints.copy()
    joints[list(hidden), 2] = 0
    colours = colours_of(np.zeros((400, 640, 3), np.uint8), joints, seen.box)
    assert colours is None if len(hidden) == 17 else colours is None or colours.sum() < 1
