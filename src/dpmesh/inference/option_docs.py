"""Docstrings of options, as the command line and Python's help() show them."""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from itertools import pairwise
from typing import TypeVar

Class = TypeVar("Class", bound=type)
_WIDTH = 92
"""Columns of help() for a method's text."""


@cache
def option_docs(kind: type) -> Mapping[str, str]:
    """The docstring of each field of an options class, its paragraphs separated by empty lines.

    Empty where the source is not installed.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError):
        return {field.name: "" for field in fields(kind)}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    return {
        field.target.id: inspect.cleandoc(doc.value.value)
        for field, doc in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(doc, ast.Expr)
        and isinstance(doc.value, ast.Constant)
        and isinstance(doc.value.value, str)
    }


class _WrappedSignature(inspect.Signature):
    """A signature that help() prints on several lines."""

    def __str__(self) -> str:
        return self.format()

    def format(self, **_: object) -> str:
        listed = ", ".join(str(parameter) for parameter in self.parameters.values())
        return "\n    ".join(textwrap.wrap(f"({listed})", _WIDTH - 16, break_long_words=False))


def with_option_docs(kind: Class) -> Class:
    """Decorator of an options class: help() and the documentation get the docstrings of its fields."""
    lines = [inspect.cleandoc(kind.__doc__ or ""), ""]
    for name, text in option_docs(kind).items():
        entry = f":param {name}: {' '.join(text.split())}"
        lines += textwrap.wrap(entry, _WIDTH, subsequent_indent="    ")
    kind.__doc__ = "\n".join(lines)
    return kind


def with_short_signatures(kind: Class) -> Class:
    """Decorator of a class: help() shows the parameters of its public methods without types."""
    for name, member in vars(kind).items():
        function = getattr(member, "__func__", member)
        if inspect.isfunction(function) and (name in ("__init__", "__call__") or not name.startswith("_")):
            parameters = inspect.signature(function).parameters.values()
            plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
            function.__signature__ = _WrappedSignature(plain)  # pyright: ignore[reportFunctionMemberAccess]
    return kind
