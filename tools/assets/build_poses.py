"""Build a pose file (src/dpmesh/shipped/poses/poses.npz, or your own) from motion capture.

    python -m tools.assets.build_poses MOCAP_DIR --out poses.npz

MOCAP_DIR holds archives (.tar.xz) or unpacked folders of: CMU ASF/AMC subjects, CMU as BVH (DAZ or CMU
names), CMU action text (exponential maps), DeepMimic JSON; or AMASS's data sets, unpacked (ACCAD/, CMU/, ...).
See docs/research/pose_prior.md.
"""

import argparse
import dataclasses
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dpmesh.body.files import free_body
from dpmesh.data.acclaim import read_amc, read_asf
from dpmesh.data.motion_files import (
    Motion,
    read_amass,
    read_bvh,
    read_deepmimic,
    read_expmap,
)
from dpmesh.data.retarget import AMC, DEEPMIMIC, EXPMAP, Layout, layout_of, retarget
from dpmesh.errors import DPMeshError, InputError
from dpmesh.io import atomic_path
from dpmesh.skeletons import SMPL24

FPS = 10.0
DEEPMIMIC_FPS = 30.0  # all of the few flips, rolls and crawls
# Rotation vectors in degrees that bring the neck and the head of an upright subject upright: ASF's zero
# poses do not define them. 01, 02: the pitch at the mode of their level walks. 03: the mean turn against
# the chest over all frames, less 7° for eyes on uneven ground.
AMC_TURNS = {
    "01": {"Head": (-9.0, 0.0, 0.0)},
    "02": {"Head": (7.5, 0.0, 0.0)},
    "03": {"Neck": (11.1, -11.6, -14.1), "Head": (-20.3, -36.4, 19.0)},
}
# No joint turns further (degrees): beyond, markers were lost. Such frames are dropped.
POSSIBLE = {
    "Torso": 100, "Spine": 45, "Chest": 45, "Neck": 65, "Head": 85, "L_Hip": 165, "R_Hip": 165, "L_Knee": 165,
    "R_Knee": 165, "L_Ankle": 85, "R_Ankle": 85, "L_Toe": 75, "R_Toe": 75, "L_Elbow": 165, "R_Elbow": 165,
    "L_Wrist": 95, "R_Wrist": 95,
}  # fmt: skip
SALSA_FPS = 60.0  # CMU's subjects 60 and 61 were recorded at 60 frames a second; the BVH files say 120


def thinned(motion: Motion, layout: Layout, fps: float) -> Motion:
    """Keep about `fps` frames a second; frame 0 stays where it is the layout's T-pose."""
    step = max(1, round(motion.fps / fps))
    kept = list(range(layout.first, len(motion.root), step))
    kept = [0, *kept] if layout.first else kept
    return Motion(
        motion.names, motion.parents, motion.offsets, motion.rotations[kept], motion.root[kept], fps
    )


def without_glitches(poses: np.ndarray) -> np.ndarray:
    """The frames in which every joint is possible."""
    angles = np.degrees(np.linalg.norm(poses, axis=-1))
    limits = np.array([POSSIBLE.get(joint, 181) for joint in SMPL24.joints])
    return poses[(angles <= limits).all(1)]


def clips(folder: Path, rest: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(name, poses F×24×3) of every clip under the folder, in the order of their paths."""

    def fit(motion: Motion, layout: Layout, fps: float = FPS) -> np.ndarray:
        return without_glitches(retarget(thinned(motion, layout, fps), layout, rest)[0])

    skeletons = {}
    for path in sorted(folder.rglob("*")):
        where = "_".join(path.relative_to(folder).with_suffix("").parts[-2:])
        if path.suffix == ".amc":
            subject = path.parent.name
            if subject not in skeletons:
                skeletons[subject] = read_asf(path.parent / f"{subject}.asf")
            layout = AMC.with_turns(AMC_TURNS.get(subject, {}))
            yield f"amc:{path.stem}", fit(read_amc(path, skeletons[subject]), layout)
        elif path.suffix == ".bvh" and path.stem != "standard":
            motion = read_bvh(path)
            if path.parent.name == "salsa":
                motion = dataclasses.replace(motion, fps=SALSA_FPS)
            layout = layout_of(motion)
            yield f"{'daz' if 'lThigh' in motion.names else 'bvh'}:{where}", fit(motion, layout)
        elif path.suffix == ".txt" and path.stem.startswith("humanoid3d_"):
            yield f"deepmimic:{path.stem[11:]}", fit(read_deepmimic(path), DEEPMIMIC, DEEPMIMIC_FPS)
        elif path.suffix == ".txt" and {"test", "train"} & set(path.parts):
            part = next(p for p in path.parts if p in ("test", "train"))
            yield f"expmap:{part}_{path.stem}", fit(read_expmap(path), EXPMAP)
        elif path.suffix == ".npz":
            try:
                poses, fps = read_amass(path)
            except InputError as error:  # a pose file of this project, or AMASS's shape.npz
                print(f"left out: {error}")
                continue
            name = path.relative_to(folder).with_suffix("").as_posix()  # the data set first: splits go by it
            yield f"amass:{name}", poses[:: max(1, round(fps / FPS))].astype(np.float32)


def save(out: Path, named_clips: list[tuple[str, np.ndarray]]) -> None:
    """fp16, each angle's course in one piece, LZMA: 0.5 MB less than numpy's own way, and np.load reads it."""
    poses = np.concatenate([p for _, p in named_clips]).astype(np.float16)
    arrays = {
        "poses": np.asfortranarray(poses),
        "lens": np.array([len(p) for _, p in named_clips], np.int32),
        "names": np.array([n for n, _ in named_clips]),
    }
    with atomic_path(out) as part, zipfile.ZipFile(part, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # without the time: the same bytes again
            entry.compress_type = zipfile.ZIP_LZMA
            with archive.open(entry, "w") as file:
                np.save(file, array)
    sources = Counter(
        name.partition("/")[0] if "/" in name else name.partition(":")[0] for name, _ in named_clips
    )
    print(f"{out}: {len(named_clips)} clips, {len(poses)} poses, {out.stat().st_size / 1e6:.2f} MB")
    print("clips by prefix of the name: " + ", ".join(f"{name} {n}" for name, n in sources.items()))


def build(mocap: Path, out: Path) -> None:
    """Raises InputError where there is no motion."""
    body = free_body()
    rest = (body.J_regressor @ body.v_template).astype(np.float32)
    for packed in sorted({*mocap.glob("*.tar.bz2"), *mocap.glob("*.tar.gz"), *mocap.glob("*.zip")}):
        print(f"not read, unpack it (tar xf): {packed}")
    with tempfile.TemporaryDirectory() as unpacked:
        for archive in sorted(mocap.glob("*.tar.xz")):
            with tarfile.open(archive) as tar:
                tar.extractall(Path(unpacked) / archive.name[:-7], filter="data")
        named_clips = list(clips(Path(unpacked), rest))
        named_clips += clips(mocap, rest)
    if not (named_clips := [(name, poses) for name, poses in named_clips if len(poses)]):
        raise InputError(
            "no motion was found", where=str(mocap), fix="docs/research/pose_prior.md names what is read."
        )
    save(out, named_clips)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mocap", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        build(arguments.mocap, arguments.out)
    except DPMeshError as error:
        sys.exit(f"build_poses: {error}")


if __name__ == "__main__":
    main()
