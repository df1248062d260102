"""The fixtures of the command's tests."""

from tests.cli.conftest import loads

__all__ = ["loads"]
