"""Training data: synthetic people, and people from data sets."""

from dpmesh.data.sources import SampleSource, open_source

__all__ = ["SampleSource", "open_source"]
