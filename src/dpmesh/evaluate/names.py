"""Text from outside (names of folders, weights, records, reasons in files) made fit for terminals, Markdown, plots."""

import re
import unicodedata

_MARKDOWN = re.compile(r"([\\|`*\[\]$]|(?<![^\W_])_|_(?![^\W_])|~(?=~))")
"""What Markdown would take for its own; an underscore within a word it leaves alone."""


def line(text: object, limit: int = 0) -> str:
    """One line that can be printed anywhere: control, format and direction characters and lone surrogates are written
    as escapes. limit: characters, the rest is cut; 0 for none."""
    shown = "".join(_visible(c) for c in str(text))
    return shown if not limit or len(shown) <= limit else shown[: limit - 1] + "…"


def markdown(text: object) -> str:
    """`line` as plain text of a Markdown table or list: no markup, no HTML."""
    escaped = _MARKDOWN.sub(r"\\\1", line(text))
    return re.sub(r"&(?=#|\w+;)", "&amp;", escaped).replace("<", "&lt;")


def plot(text: object) -> str:
    """`line` as a label of matplotlib, which leaves out of its legends what begins with an underscore. Mathematics is
    to be switched off where it is drawn."""
    shown = line(text, 48)
    return f" {shown}" if shown.startswith("_") else shown


def file_name(text: object) -> str:
    """A file's name that says as much of the text as every file system takes."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in str(text))[:100]


def _visible(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character
