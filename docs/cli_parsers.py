"""The parser of each verb, for sphinx-argparse: one function per verb, named as it."""

import argparse
import importlib
from functools import partial

from dpmesh.cli.main import VERBS


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser of `dpmesh VERB`."""
    parser = argparse.ArgumentParser(
        prog=f"dpmesh {verb}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    importlib.import_module(f"dpmesh.cli.{verb}").add_arguments(parser)
    return parser


globals().update({verb: partial(parser_of, verb) for verb in VERBS})
