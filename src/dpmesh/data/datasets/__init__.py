"""Readers of the data sets' own files."""
