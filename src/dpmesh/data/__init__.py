"""Training data: people that are generated, and people from files."""

from dpmesh.data.sources import Source, open_source

__all__ = ["Source", "open_source"]
