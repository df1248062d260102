"""SynthOcc: a frozen set of occluded people (docs/research/synthocc.md). Nothing here may change a label.

Its composer is its own: floors, walls, clothes, occluders and rules of placement are written here once and for version
1. Shared with the rest of the package is what has one correct result (the rasteriser, the SMPL layer, in float64) or is
pinned by the labels' checksum in the tests (the free body, the pose bank, data/noise.py).
"""
