"""A protocol never changes unnoticed."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from dpmesh.errors import ConfigError
from dpmesh.evaluate.protocol import KeypointRule, Protocol
from dpmesh.evaluate.registry import entry, register

HASHES = {
    "3dpw": "86dd1438ee04ac98",
    "3dpw@as-run": "70935af98d5912f4",
    "3dpw-oc": "9c819a55bf751649",
    "3dpw-oc@as-run": "8edda161523e8b9c",
    "3dpw-pc": "3341b13594dbde94",
    "3dpw-pc@as-run": "5e20abc60adbe60d",
    "3dpw-crowd": "81842ce65f9050e9",
    "3dpw-crowd@as-run": "fba9b1aac604500f",
    "3dpw-validation": "d1eddb7e48f8675a",
    "3dpw-validation@annotated": "03ea8e360c8ff7ad",
    "3doh": "c99e072ed71ffffc",
    "3doh@as-run": "4557a28b2bd31040",
    "3doh@detector": "7d63db61edd89c9a",
    "panoptic-haggling": "60536787634ca74c",
    "panoptic-haggling@annotated": "25ddb5dbdb44a42f",
    "panoptic-mafia": "65386fa106d5e660",
    "panoptic-mafia@annotated": "6eea724e7264cd11",
    "panoptic-ultimatum": "724bc86096098f08",
    "panoptic-ultimatum@annotated": "2a1a0b3fb29b8b08",
    "panoptic-pizza": "66044a52a50c49e5",
    "panoptic-pizza@annotated": "4894620aa09d0957",
    "pose2sim": "db33f67aadb6f250",
    "pose2sim-tuning": "5e03f1ce098a01f3",
    "pose2sim-occluded": "d620f24133279553",
    "pose2sim-occluded-tuning": "6d587bdb049008c4",
    "synthocc": "1ba8b33567d9d50d",
    "synthocc@detector": "0e8fa4e2b585a563",
    "synthocc-video": "e52a297d60b4d934",
    "synthocc-video@annotated": "2f0c9dc8b0090fc6",
}
"""A failure here means that results are no longer comparable with earlier ones: raise the protocol's `version`."""


def test_hashes_are_pinned():
    assert {name: one.protocol.hash for name, one in register().items()} == HASHES


def test_published_counts_are_the_papers():
    counts = {name: one.protocol.persons for name, one in register().items() if "@" not in name}
    assert {n: p for n, p in counts.items() if p} == {
        "3dpw": 35515, "3dpw-oc": 20243, "3dpw-pc": 2218, "3dpw-crowd": 1923, "3doh": 1290,
        "synthocc": 5040, "synthocc-video": 120,  # ours
    }  # fmt: skip


def changed(value: Any) -> Any:
    """Any other value of the same kind; the hash does not care whether it makes sense."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 0.25
    if isinstance(value, str):
        return value + "?"
    return (*value, "more")


def leaves(value: Any) -> list[tuple[str, Any]]:
    """(field, value with that field changed) for every field at every depth."""
    pairs: list[tuple[str, Any]] = []
    for f in fields(value):
        inner = getattr(value, f.name)
        if is_dataclass(inner):
            pairs += [(f"{f.name}.{name}", (f.name, other)) for name, other in leaves(inner)]
        else:
            pairs.append((f.name, (f.name, inner)))
    return pairs


def test_every_field_that_decides_a_number_is_in_the_hash():
    protocol = entry("3dpw").protocol
    plain = protocol.definition()

    def flat(data: Any, path: str = "") -> dict[str, Any]:
        if isinstance(data, dict):
            return {k: v for name, inner in data.items() for k, v in flat(inner, f"{path}.{name}").items()}
        return {path: data}

    names = {name.lstrip(".") for name in flat(plain)}
    unhashed = {"title", "persons", "notes"}
    assert names == {name for name, _ in leaves(protocol)} - unhashed
    for f in fields(Protocol):
        value = getattr(protocol, f.name)
        if is_dataclass(value) or value is None:
            continue
        moved = object.__new__(Protocol)  # past the checks of __init__
        for g in fields(Protocol):
            object.__setattr__(
                moved, g.name, changed(value) if g.name == f.name else getattr(protocol, g.name)
            )
        assert (moved.hash == protocol.hash) == (f.name in unhashed), f.name


def test_editions_differ_where_they_should_and_nowhere_else():
    there = {name: one.protocol for name, one in register().items()}
    for name in ("3dpw", "3dpw-oc", "3dpw-pc"):
        paper, run = there[name], there[f"{name}@as-run"]
        truth = replace(run.truth, placed="origin")
        assert replace(run, edition="paper", truth=truth).hash == paper.hash
    assert there["3dpw-crowd"].keypoints.source == "hhrnet"
    assert there["3dpw-crowd@as-run"].keypoints.source == "openpose"
    assert there["3dpw-crowd"].measure.joint_names[:2] == ("R_Hip", "R_Knee")
    assert len(there["3dpw"].measure.rows) == 14 and len(there["panoptic-pizza"].measure.rows) == 17


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match=r"no protocol '3dwp'.*3dpw-oc.*dpmesh eval list"):
        entry("3dwp")
    with pytest.raises(ConfigError, match="no confidence"):
        KeypointRule(source="openpose", threshold=1.5)
