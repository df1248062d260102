"""Measurements behind the numbers in the documentation. Run one as `python -m benchmarks.FOLDER.NAME`."""
