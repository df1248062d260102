"""Cameras, crops and joint heatmaps: where things are, in which frame."""

CROP = 256
"""Side of the crop in pixels; the crop camera's principal point is its middle."""
