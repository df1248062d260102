"""README, docs, docstrings and comments name only files, links, anchors, commands, flags and names that exist."""

import argparse
import ast
import importlib
import io
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

from dpmesh.cli.main import VERBS

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md"))
    if "_build" not in path.parts
)
SOURCES = sorted(
    path for room in ("src", "tools", "benchmarks", "tests") for path in (ROOT / room).rglob("*.py")
)
CONFIGS = sorted((ROOT / "configs").rglob("*.toml"))
TREE = [
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("*")
    if not {".git", ".venv", "node_modules", "__pycache__"} & set(path.relative_to(ROOT).parts)
]

FILE = re.compile(r"(?<![\w./<{*-])((?:[\w-]+/)*[\w-]+\.(?:py|md|toml|ya?ml|cff))(?![\w/*{])")
"""A name that looks like a file of a repository."""
NOT_OURS = {
    # Files of other projects and of users, which docs may name.
    "config.py", "model.py", "train.py", "eval.py", "base.py", "setup.py", "photo.py", "main.py", "CONFIG.toml",
    "mine.toml", "run.py", "lora.py", "download.py", "models.py",
}  # fmt: skip


def is_here(name: str) -> bool:
    """Whether a file of this name, or one whose path ends with it, is in the repository."""
    return any(path == name or path.endswith("/" + name) for path in TREE)


def prose_of(path: Path) -> str:
    """Docstrings and comments of a Python file."""
    text = path.read_text()
    found = [
        ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    strings = [  # attributes' docstrings
        node.value.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return "\n".join([*found, *strings, *comments])


def missing_files(text: str) -> list[str]:
    return sorted({name for name in FILE.findall(text) if name not in NOT_OURS and not is_here(name)})


@pytest.mark.parametrize("path", [*PAGES, *CONFIGS], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_pages_name_files_that_exist(path: Path):
    text = re.sub(r"https?://\S+", "", path.read_text())
    assert missing_files(text) == []


def test_docstrings_and_comments_name_files_that_exist():
    missing = {
        path.relative_to(ROOT).as_posix(): names
        for path in SOURCES
        if (names := missing_files(re.sub(r"https?://\S+", "", prose_of(path))))
    }
    assert missing == {}


def test_no_word_of_how_it_was_made():
    """Documentation addresses users: it knows of no issue tracker and no folder that a user does not have."""
    private = re.compile(r"\bshared/|\bissue \d|\bthe issue\b|datasets\.md", re.I)
    named = {
        path.relative_to(ROOT).as_posix(): sorted(set(found))
        for path in (*PAGES, *SOURCES, *CONFIGS)
        if path != Path(__file__) and (found := private.findall(path.read_text()))
    }
    assert named == {}


# Links


@cache
def anchors_of(path: Path) -> frozenset[str]:
    """Anchors of a page's headings, as GitHub and MyST make them."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    headings = re.findall(r"^#+ +(.*)$", text, flags=re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    slugs = (re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain)
    return frozenset(slugs) | frozenset(re.findall(r'(?:id|name)="([^"]+)"', text))


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path):
    dead: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors_of(file)):
            dead.append(target)
    assert dead == []


# Commands


@cache
def flags_of(verb: str) -> frozenset[str]:
    """Every option of a verb and of its subcommands."""
    parser = argparse.ArgumentParser()
    importlib.import_module(f"dpmesh.cli.{verb}").add_arguments(parser)
    flags: set[str] = {"--help"}
    waiting: list[argparse.ArgumentParser] = [parser]
    while waiting:
        for action in waiting.pop()._actions:
            flags |= set(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                waiting += list(action.choices.values())
    return frozenset(flags)


def commands_of(path: Path) -> list[str]:
    """Commands in code: fenced blocks by line, and what stands between backticks."""
    text = path.read_text().replace("\\\n", " ")
    fenced = re.findall(r"```[a-z]*\n(.*?)```", text, flags=re.S)
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.S))
    lines = [
        line.split("  #")[0].strip().removeprefix("$ ") for block in fenced for line in block.splitlines()
    ]
    return [*lines, *inline]


def wrong_in(command: str) -> str | None:
    """What a command names that does not exist; None where all is well or the command is not of this project."""
    words = command.split()
    flags = [re.split(r"[=|.\],]", word.lstrip("["))[0] for word in words if re.match(r"\[?--[a-z]", word)]
    if words[:1] == ["dpmesh"] and len(words) > 1 and re.fullmatch(r"[a-z]+", words[1]):
        if words[1] not in VERBS:
            return f"verb {words[1]}"
        known = flags_of(words[1])
        return next((flag for flag in flags if flag not in known and flag != "--set"), None)
    if words[:1] == ["python"] and len(words) > 1 and words[1].endswith(".py"):
        if not is_here(words[1]):
            return words[1]
        text = (ROOT / next(p for p in TREE if p.endswith(words[1]))).read_text()
        return next((f for f in flags if f'"{f}"' not in text and f != "--set"), None)
    if words[:1] == ["make"] and len(words) == 2 and re.fullmatch(r"[a-z-]+", words[1]):
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
        return None if words[1] in targets else words[1]
    return None


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_commands_exist(path: Path):
    wrong = [(command, fault) for command in commands_of(path) if (fault := wrong_in(command))]
    assert wrong == []


def test_the_checks_see_what_is_wrong():
    assert missing_files("see train/tasks.py and docs/nowhere.md") == ["docs/nowhere.md", "train/tasks.py"]
    assert wrong_in("dpmesh predict a.jpg --out b --nothing") == "--nothing"
    assert wrong_in("dpmesh fly") == "verb fly"
    assert wrong_in("make coffee") == "coffee"
    assert wrong_in("dpmesh predict a.jpg --out b") is None
