"""Which sequences of 3DPW its occlusion benchmarks are made of: evaluation selects them, training leaves them out.

Sources: 3DPW-OC (Zhang et al., CVPR 2020), 3DPW-PC (Sun et al., ICCV 2021), 3DPW-Crowd (Choi et al., CVPR 2022).
"""

OC_FAMILIES = (
    "courtyard_backpack", "courtyard_basketball", "courtyard_bodyScannerMotions", "courtyard_box", "courtyard_golf",
    "courtyard_jacket", "courtyard_laceShoe", "downtown_stairs", "flat_guitar", "flat_packBags", "outdoors_climbing",
    "outdoors_crosscountry", "outdoors_fencing", "outdoors_freestyle", "outdoors_golf", "outdoors_parcours",
    "outdoors_slalom",
)  # fmt: skip
"""Names of sequences without their number."""

PC_FRAMES = (
    ("courtyard_basketball_00", 200, 280), ("courtyard_captureSelfies_00", 500, 600), ("courtyard_dancing_00", 60, 370),
    ("courtyard_dancing_01", 60, 270), ("courtyard_hug_00", 100, 500), ("downtown_bus_00", 1620, 1900),
)  # fmt: skip
"""Sequence, first frame, end (exclusive)."""

CROWD_SEQUENCES = ("courtyard_hug_00", "courtyard_dancing_00")


def tested_on(sequence: str) -> bool:
    """Is the sequence, whatever its split, part of 3DPW-OC, 3DPW-PC or 3DPW-Crowd?"""
    whole = (*CROWD_SEQUENCES, *(name for name, *_ in PC_FRAMES))
    return sequence.rpartition("_")[0] in OC_FAMILIES or sequence in whole
