"""Every error that a user can cause: what is wrong, where, and the next command.

The command line prints one of these as a single line and exits; a library user catches `DPMeshError`.
"""

LONGEST = 1000
"""Characters of a message."""


def printable(text: str) -> str:
    """The text as one line that cannot steer a terminal: control characters, line breaks, marks that turn the reading
    direction, and bytes that are no UTF-8 stand as their escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class DPMeshError(Exception):
    """Base of all errors of this package.

    what: what is wrong.  where: the file, field or argument.  fix: the next thing to type or to change.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        place = f"{printable(where)}: " if where else ""
        gap = " " if what.endswith((".", ".)", "?")) else ". "
        hint = f"{gap}{fix}" if fix else ""
        super().__init__(_readable(f"{place}{what}{hint}"))


def _readable(text: str) -> str:
    """What a file's content put into a message must not fill a terminal, nor give it commands."""
    text = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= LONGEST else f"{text[:600]} … {text[-300:]}"


class InputError(DPMeshError):
    """A picture, a keypoint file, a box or an array that the user gave cannot be used."""


class ConfigError(DPMeshError):
    """A configuration names something unknown or asks for something impossible."""


class AssetError(DPMeshError):
    """A file that the package ships, or that the user's licence provides, is missing or is not what it should be."""


class WeightsError(DPMeshError):
    """Stored weights do not fit the model."""


class OutputError(DPMeshError):
    """A result cannot be written where it was asked for."""
