"""Cameras, crops, rotations and joint heatmaps."""

CROP = 256
"""Side of the crop in pixels. The principal point of the crop camera is its middle."""
