"""Tracks as animations of other programs: BVH, AMASS, animated glTF."""
