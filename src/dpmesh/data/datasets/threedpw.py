"""3DPW: its sequence files, its names, and the sequences that the occlusion benchmarks are made of.

3DPW/ or PW3D/data/: sequenceFiles/{split}/*.pkl, or 3DPW_latest_{train,validation}.json (threedpw_json.py); the images
are imageFiles/SEQUENCE/image_NNNNN.jpg.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (JSON and pickles have no types)

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray

from dpmesh.body.unpickle import load_pickle
from dpmesh.data.datasets.files import Array
from dpmesh.errors import InputError
from dpmesh.fields import invertible, numbers

Gender = Literal["male", "female"]

IMAGES = "imageFiles"
"""Folder of the images, one folder a sequence."""
BOX_ENLARGED = 1.2
"""Factor on the box around the joints inside the image, as in the JSON files."""

# Which sequences the occlusion benchmarks are made of: evaluation selects them, training leaves them out. Sources:
# 3DPW-OC (Zhang et al., CVPR 2020), 3DPW-PC (Sun et al., ICCV 2021), 3DPW-Crowd (Choi et al., CVPR 2022).

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
    """Whether the sequence, of whatever split, is part of 3DPW-OC, 3DPW-PC or 3DPW-Crowd."""
    whole = (*CROWD_SEQUENCES, *(name for name, *_ in PC_FRAMES))
    return sequence.rpartition("_")[0] in OC_FAMILIES or sequence in whole


# The official sequence files (Python 2 pickles).


@dataclass(frozen=True, eq=False)
class Sequence:
    """A sequence file: p people in f frames at 30 Hz; world frame, metres, axis-angle, pixels.

    name: as stored.  K: camera of every image.  world_to_camera: of each frame.  campose_valid: where that is right.
    keypoints: OpenPose-18, x y confidence.  image_numbers: of each frame; None where the file has none.
    """

    name: str
    K: Float64[Array, "3 3"]
    world_to_camera: Float64[Array, "f 4 4"]
    genders: tuple[Gender, ...]
    pose: Float64[Array, "p f 24 3"]
    transl: Float64[Array, "p f 3"]
    betas: Float64[Array, "p 10"]
    joints: Float64[Array, "p f 24 3"]
    keypoints: Float64[Array, "p f 18 3"]
    campose_valid: Bool[NDArray[np.bool_], "p f"]
    image_numbers: tuple[int, ...] | None


def sequence_files(folder: Path, split: str) -> list[Path]:
    """The split's sequence files in order; [] without any."""
    return sorted((folder / "sequenceFiles" / split).glob("*.pkl"))


def json_file(split: str) -> str:
    """3DCrowdNet's annotations of a split, in COCO's style."""
    return f"3DPW_latest_{split}.json"


def image_name(frame: int) -> str:
    """File name of an image in its sequence's folder."""
    return f"image_{frame:05d}.jpg"


def read_sequence(path: Path) -> Sequence:
    """A sequence file, all shapes and numbers checked. Raises InputError."""
    raw, where = cast("Any", load_pickle(path)), str(path)
    if not isinstance(raw, dict):
        raise InputError("not a dictionary", where=where, fix="This is not the set's file.")
    try:
        K = numbers(
            raw["cam_intrinsics"],
            (
                3,
                3,
            ),
            where=f"{where}: cam_intrinsics",
        )
        if not invertible(K):
            raise InputError("cam_intrinsics cannot be inverted", where=where)
        cameras = numbers(
            raw["cam_poses"],
            (
                -1,
                4,
                4,
            ),
            where=f"{where}: cam_poses",
        )
        genders: tuple[Gender, ...] = tuple(gender(word, where) for word in raw["genders"])
        frames = len(cameras)

        def people(name: str, *shape: int) -> Array:
            values = [
                numbers(raw[name][p], shape, where=f"{where}: {name}[{p}]") for p in range(len(genders))
            ]
            return np.array(values).reshape(len(genders), *shape)

        shapes = [np.ravel(np.asarray(raw["betas"][p]))[:10] for p in range(len(genders))]
        return Sequence(
            name=str(raw["sequence"]) if "sequence" in raw else path.stem,
            K=K,
            world_to_camera=cameras,
            genders=genders,
            pose=people("poses", frames, 72).reshape(-1, frames, 24, 3),
            transl=people("trans", frames, 3),
            betas=np.array([numbers(b, (10,), where=f"{where}: betas[{p}]") for p, b in enumerate(shapes)]),
            joints=people("jointPositions", frames, 72).reshape(-1, frames, 24, 3),
            keypoints=people("poses2d", frames, 3, 18).transpose(0, 1, 3, 2),
            campose_valid=people("campose_valid", frames) != 0,
            image_numbers=tuple(int(n) for n in raw["img_frame_ids"]) if "img_frame_ids" in raw else None,
        )
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        raise InputError(
            f"a field of the sequence is missing or has a wrong value ({line})",
            where=where,
            fix="Download the files again.",
        ) from None


def gender(word: Any, where: str) -> Gender:
    """The gender that a file names m, f, male or female. Raises InputError."""
    genders: dict[str, Gender] = {"m": "male", "f": "female", "male": "male", "female": "female"}
    if (name := genders.get(str(word).lower())) is None:
        raise InputError(f"gender {word!r} is neither male nor female", where=where)
    return name
