"""What pyproject.toml promises is what `make test-lowest` tests with."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
_LINE = re.compile(r"([\w-]+)==(\S+)")


def test_the_lowest_versions_are_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    tested = {m[1]: Version(m[2]) for m in map(_LINE.fullmatch, lines) if m}
    wanted = [
        Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"]["data"])
    ]
    for one in wanted:
        (floor,) = [s for s in one.specifier if s.operator == ">="]
        assert (
            tested[one.name].release[: len(Version(floor.version).release)] == Version(floor.version).release
        ), one
        assert not any(tested[one.name].release[len(Version(floor.version).release) : -1]), one
    assert {one.name for one in wanted} | {"beartype", "pytest"} == set(tested)
    assert project["requires-python"] == ">=3.11"
