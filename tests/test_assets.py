"""ASSETS.md lists every shipped file with its checksum, and the tree stays small."""

import hashlib
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
NOT_ASSETS = {"examples/README.md", "examples/LICENSE-BSD-3-Clause.txt"}


def lines() -> dict[str, str]:
    rows = [row.split("|") for row in (ROOT / "ASSETS.md").read_text().splitlines() if row.startswith("| ")]
    return {row[1].strip(): row[4].strip() for row in rows if "/" in row[1]}


def test_every_shipped_file_has_a_line_with_its_checksum():
    shipped = [
        p for folder in ("src/dpmesh/shipped", "examples") for p in (ROOT / folder).rglob("*") if p.is_file()
    ]
    checksums = {str(p.relative_to(ROOT)): hashlib.sha256(p.read_bytes()).hexdigest() for p in shipped}
    for name in NOT_ASSETS:
        checksums.pop(name)
    assert checksums == lines()


def test_tracked_tree_is_below_60_megabytes():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    sizes = {
        name: (ROOT / name).stat().st_size for name in listed.split("\0") if name and (ROOT / name).is_file()
    }
    assert sum(sizes.values()) < 60e6, sorted(sizes.items(), key=lambda item: -item[1])[:5]
