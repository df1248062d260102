"""README, docs, docstrings and comments name only files, links, anchors, commands, flags and names that exist."""

import argparse
import ast
import importlib
import io
import re
import shlex
import tokenize
import tomllib
from functools import cache
from pathlib import Path

import pytest

from dpmesh.cli.main import VERBS
from dpmesh.cli.train import changes
from dpmesh.errors import DPMeshError
from dpmesh.evaluate.registry import register
from dpmesh.train.config_file import read_settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("examples/*.md"))
    if "_build" not in path.parts
)
HISTORY = sorted(ROOT.glob("dev/*.md"))
CHANGES = ROOT / "CHANGELOG.md"
"""Names what there was, too."""
SOURCES = sorted(
    path for room in ("src", "tools", "benchmarks", "tests") for path in (ROOT / room).rglob("*.py")
)
CONFIGS = sorted((ROOT / "configs").rglob("*.toml"))
GENERATED = {
    ".git",
    ".venv",
    ".venv-lowest",
    "node_modules",
    "__pycache__",
    "_build",
    "runs",
    "build",
    "dist",
}
TREE = [
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("*")
    if not GENERATED & set(path.relative_to(ROOT).parts)
]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

FILE = re.compile(r"(?<![\w./<{*-])((?:[\w-]+/)*[\w-]+\.(?:py|md|toml|ya?ml|cff))(?![\w/*{])")
"""A name that has the form of a repository's file."""
NOT_OURS = {
    "config.py",
    "model.py",
    "base.py",
    "setup.py",
    "main.py",
    "run.py",
    "lora.py",
    "models.py",
    "train.py",
}
"""Files of other projects that comments name."""
PLACEHOLDERS = {"CONFIG.toml", "FILE.toml", "result.md"}
"""Names of files that users or commands write."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_here(name: str) -> bool:
    """Whether a file of this name, or one whose path ends with it, is in the repository."""
    return any(path == name or path.endswith("/" + name) for path in TREE)


def prose_of(path: Path) -> str:
    """Docstrings (of modules, classes, functions, attributes) and comments of a Python file."""
    text = path.read_text()
    strings = [
        node.value.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join([*strings, *(token.string for token in tokens if token.type == tokenize.COMMENT)])


def missing_files(text: str) -> list[str]:
    names = set(FILE.findall(re.sub(r"https?://\S+", "", text))) - NOT_OURS - PLACEHOLDERS
    return sorted(name for name in names if not is_here(name))


@pytest.mark.parametrize("path", [*PAGES, *HISTORY, *CONFIGS], ids=relative)
def test_pages_name_files_that_exist(path: Path) -> None:
    assert missing_files(path.read_text()) == []


def test_docstrings_and_comments_name_files_that_exist() -> None:
    missing = {relative(path): names for path in SOURCES if (names := missing_files(prose_of(path)))}
    assert missing == {}


def test_pages_address_users() -> None:
    """They name no issue tracker and no folder that a user does not have."""
    private = re.compile(r"\bshared/|\bissue \d|\bthe issue\b|datasets\.md", re.IGNORECASE)
    named = {
        relative(path): sorted(set(matches))
        for path in (*PAGES, *HISTORY, *SOURCES, *CONFIGS)
        if path != Path(__file__) and (matches := private.findall(path.read_text()))
    }
    assert named == {}


# Links


@cache
def anchors_of(path: Path) -> frozenset[str]:
    """Anchors of a page's headings, as GitHub and MyST make them."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ +(.*)$", text, flags=re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    slugs = (re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain)
    return frozenset(slugs) | frozenset(re.findall(r'(?:id|name)="([^"]+)"', text))


@pytest.mark.parametrize("path", [*PAGES, *HISTORY], ids=relative)
def test_links_lead_somewhere(path: Path) -> None:
    dead: list[str] = []
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors_of(file)):
            dead.append(target)
    assert dead == []


def test_the_site_has_every_page_and_every_image_has_a_page() -> None:
    listed = re.findall(r"^(\w+/\w+)$", (DOCS / "index.md").read_text(), flags=re.MULTILINE)
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in PAGES if DOCS in path.parents}
    assert sorted(listed) == sorted(pages - {"index"})
    shown = "\n".join(path.read_text() for path in PAGES)
    images = [path.relative_to(DOCS).as_posix() for path in (DOCS / "images").rglob("*.*")]
    assert [image for image in images if image not in shown] == []


# Commands


@cache
def parser_of(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"dpmesh.cli.{verb}").add_arguments(parser)
    return parser


def subcommands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """None of a verb without subcommands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def commands_of(path: Path) -> list[str]:
    """Commands in code: fenced blocks by line, and what stands between backticks."""
    text = path.read_text().replace("\\\n", " ")
    fenced = re.findall(r"```[a-z]*\n(.*?)```", text, flags=re.DOTALL)
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```[a-z]*\n.*?```", "", text, flags=re.DOTALL))
    lines = [
        line.split("  #")[0].strip().removeprefix("$ ") for block in fenced for line in block.splitlines()
    ]
    return [*lines, *inline]


def wrong_in(command: str) -> str | None:
    """What a command names that does not exist; None where all is well or the command is not of this project."""
    command = re.sub(r"^(?:\w+=\S+ )*(?:torchrun .*?-m )?", "", command)
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    flags = [re.split(r"[=|.\],]", word.lstrip("["))[0] for word in words if re.match(r"\[?--[a-z]", word)]
    if words[:1] == ["dpmesh"] and len(words) > 1 and re.fullmatch(r"[a-z]+", words[1]):
        return _wrong_in_verb(words, flags)
    if words[:1] == ["python"] and (script := _script_in(words)):
        if not (ROOT / script).is_file():
            return script
        text = (ROOT / script).read_text()
        return next((flag for flag in flags if f'"{flag}"' not in text and flag != "--set"), None)
    if words[:1] == ["make"] and len(words) == 2 and re.fullmatch(r"[a-z-]+", words[1]):
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        return None if words[1] in targets else words[1]
    if words[:2] == ["pip", "install"]:
        extras = {
            e for word in words for group in re.findall(r"^\.\[(.*)\]$", word) for e in group.split(",")
        }
        return next(iter(extras - set(PYPROJECT["project"]["optional-dependencies"])), None)
    return None


def _script_in(words: list[str]) -> str | None:
    """The file that `python PATH` or `python -m tools.FOLDER.NAME` runs."""
    if (
        len(words) > 2
        and words[1] == "-m"
        and words[2].partition(".")[0] in ("tools", "benchmarks", "dpmesh")
    ):
        return words[2].replace(".", "/") + ".py"
    return words[1] if len(words) > 1 and words[1].endswith(".py") else None


def _wrong_in_verb(words: list[str], flags: list[str]) -> str | None:
    verb = words[1]
    if verb not in VERBS:
        return f"verb {verb}"
    parsers = [parser_of(verb)]
    if subcommands := subcommands_of(parsers[0]):
        if len(words) > 2 and re.fullmatch(r"[a-z0-9]+", words[2]):
            if words[2] not in subcommands:
                return f"{verb} {words[2]}"
            parsers.append(subcommands[words[2]])
        else:
            parsers += subcommands.values()
    known = {option for parser in parsers for action in parser._actions for option in action.option_strings}
    known |= {"--set"} if verb in ("train", "convert") else set()
    if unknown := next((flag for flag in flags if flag not in known), None):
        return unknown
    if verb == "eval":
        return next((name for name in _protocols_in(words) if name not in register()), None)
    if verb == "train" and any(word.startswith("--set.") for word in words):
        return _wrong_setting(words)
    return None


def _protocols_in(words: list[str]) -> list[str]:
    """The names in `dpmesh eval run NAME... --flag`."""
    end = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    return [word for word in words[3:end] if words[2] == "run" and re.fullmatch(r"[a-z0-9@-]+", word)]


def _wrong_setting(words: list[str]) -> str | None:
    """The lines of `dpmesh train` about a config's settings."""
    configs = [word for word in words if word.endswith(".toml")]
    if not configs or configs[0] in PLACEHOLDERS:
        return None
    rest = [word for word in words[words.index(configs[0]) + 1 :] if word != "--check"]
    try:
        read_settings(ROOT / configs[0], changes(rest))
    except DPMeshError as error:
        return str(error)
    return None


@pytest.mark.parametrize("path", [path for path in PAGES if path != CHANGES], ids=relative)
def test_commands_exist(path: Path) -> None:
    wrong = [(command, fault) for command in commands_of(path) if (fault := wrong_in(command))]
    assert wrong == []


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_examples_import_names_that_exist(path: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "dpmesh":
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_checks_find_what_is_wrong() -> None:
    assert missing_files("see train/tasks.py and docs/nowhere.md") == ["docs/nowhere.md", "train/tasks.py"]
    assert wrong_in("dpmesh predict a.jpg --out b --nothing") == "--nothing"
    assert wrong_in("dpmesh fly") == "verb fly"
    assert wrong_in("dpmesh convert nothing FILE") == "convert nothing"
    assert wrong_in("make coffee") == "coffee"
    assert wrong_in("python -m tools.coffee OUT") == "tools/coffee.py"
    assert wrong_in("pip install '.[coffee]'") == "coffee"
    assert wrong_in("dpmesh train configs/embedded.toml --set.images.coffee 3") is not None
    assert wrong_in("DPMESH_ASSETS=a torchrun -m dpmesh train configs/embedded.toml --coffee") == "--coffee"
    assert wrong_in("dpmesh predict a.jpg --out b") is None
    assert wrong_in("dpmesh train configs/embedded.toml --set.images.steps 3") is None
