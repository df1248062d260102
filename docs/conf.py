"""The documentation site: `make docs` builds it into docs/_build/html; a warning is an error."""

import os
import re
from pathlib import Path

from dpmesh.cli.main import VERBS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

project = "dpmesh"
author = "the dpmesh authors"
copyright = author
release = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinxarg.ext"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "dpmesh"

myst_heading_anchors = 4
suppress_warnings = ["myst.domains"]  # sphinx-argparse's domain does not answer MyST's links
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}

SOURCE = os.environ.get("DPMESH_SOURCE_URL", "")
"""Where the repository's files can be browsed, with a slash at the end; links to files outside docs/ lead there.
Without it they become the file's name."""


VERB = """
## dpmesh {verb}

```{{eval-rst}}
.. argparse::
   :filename: cli_parsers.py
   :func: {verb}
   :prog: dpmesh {verb}
```
"""


def read_page(app, docname, source):
    """The start page begins with the README, the command line's page has a section for each verb. Links to files
    outside docs/ lead to SOURCE, or become plain text."""
    if docname == "index":
        source[0] = _linked((ROOT / "README.md").read_text(), ROOT, DOCS) + "\n" + source[0]
    elif docname == "reference/cli":
        source[0] += "".join(VERB.format(verb=verb) for verb in VERBS)
    else:
        folder = (DOCS / docname).parent
        source[0] = _linked(source[0], folder, folder)


def _linked(text, written_in, shown_in):
    """text: Markdown whose links are relative to `written_in`; they become relative to `shown_in`."""

    def link(match):
        mark, words, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        file, hash_, anchor = target.partition("#")
        path = (written_in / file).resolve()
        if DOCS in path.parents:
            return f"{mark}[{words}]({os.path.relpath(path, shown_in)}{hash_}{anchor})"
        name = path.relative_to(ROOT).as_posix()
        if SOURCE:
            return f"[{words}]({SOURCE}{name})"
        return words if name in words else f"{words} (`{name}`)"

    return re.sub(r"(!?)\[([^\[\]]*)\]\(([^)\s]+)\)", link, text)


def setup(app):
    app.connect("source-read", read_page)
