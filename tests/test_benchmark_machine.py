"""benchmarks/machine.py: the reported commit is the benchmark's own, wherever it is called."""

import shutil
import subprocess
import sys
from pathlib import Path


def test_the_commit_is_that_of_the_benchmarks_checkout(tmp_path: Path) -> None:
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    checkout.mkdir()
    elsewhere.mkdir()
    script = checkout / "machine.py"
    shutil.copy(Path(__file__).parents[1] / "benchmarks" / "machine.py", script)

    def git(*words: str) -> str:
        own = [
            "git",
            "-C",
            str(checkout),
            "-c",
            "user.name=n",
            "-c",
            "user.email=e",
            "-c",
            "commit.gpgsign=false",
        ]
        return subprocess.run([*own, *words], capture_output=True, text=True, check=True).stdout.strip()

    def commit() -> str:
        code = f"import sys; sys.path.insert(0, {str(checkout)!r}); import machine; print(machine.commit())"
        ran = subprocess.run(
            [sys.executable, "-B", "-c", code], cwd=elsewhere, capture_output=True, text=True, check=True
        )
        return ran.stdout.strip()

    git("init", "-q")
    git("add", "machine.py")
    git("commit", "-q", "-m", "one")
    assert commit() == git("rev-parse", "--short", "HEAD")
    script.write_text(script.read_text() + "# changed\n")
    assert commit() == git("rev-parse", "--short", "HEAD") + "+"
