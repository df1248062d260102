"""Cameras, crops and joint heatmaps: where things are, in which frame."""
