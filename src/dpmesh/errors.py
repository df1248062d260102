"""The package's errors: each message says what is wrong, where, and what to do next.

The command line prints them as a single line and exits. Library users catch `DPMeshError`.
"""

LONGEST = 1000
"""Longest message in characters."""


def printable(text: str) -> str:
    """The text on one line, with everything that is not printable escaped: control characters, line breaks, marks of
    the reading direction, and bytes that are not UTF-8."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class DPMeshError(Exception):
    """Base of all errors of this package."""

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        """what: what is wrong. where: the file, field or argument. fix: what to type or change next."""
        self.what, self.where, self.fix = what, where, fix
        place = f"{printable(where)}: " if where else ""
        gap = " " if what.endswith((".", ".)", "?")) else ". "
        hint = f"{gap}{fix}" if fix else ""
        super().__init__(_readable(f"{place}{what}{hint}"))


def _readable(text: str) -> str:
    """The text without control characters, shortened to LONGEST: messages may quote the content of a file."""
    text = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= LONGEST else f"{text[:600]} … {text[-300:]}"


class InputError(DPMeshError):
    """An image, keypoint file, box or array of the user cannot be used."""


class ConfigError(DPMeshError):
    """A configuration is invalid: an unknown name, or values that do not work."""


class AssetError(DPMeshError):
    """A shipped or imported file is missing or damaged."""


class WeightsError(DPMeshError):
    """Stored weights cannot be read, or do not fit the model."""


class OutputError(DPMeshError):
    """A result cannot be written."""
