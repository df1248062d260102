"""MoveNet Thunder's keypoints of one person: decoding of its four heads."""

HEADS = ("heatmaps", "centre", "regression", "offsets")
"""Outputs of the shipped file: n×17, n×1, n×34 and n×34 (17 pairs y, x), each 64×64."""
