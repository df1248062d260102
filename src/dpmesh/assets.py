"""Asset files: shipped with the package (see ASSETS.md), or imported by the user under a licence of their own."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from dpmesh.errors import AssetError
from dpmesh.io import open_regular

SHIPPED = Path(__file__).parent / "shipped"
"""Folder of the shipped files."""
FOLDER_VARIABLE = "DPMESH_ASSETS"
"""Environment variable with the folder of imported files; see `asset_folder`."""


@dataclass(frozen=True)
class UserAsset:
    """A file that the package may not ship."""

    name: str
    """Key in USER_ASSETS."""
    place: str
    """Path below the asset folder, without suffix."""
    suffixes: tuple[str, ...]
    """Accepted suffixes."""
    unlocks: str
    """What the file is needed for."""
    source: str
    """Where to get it, and its licence."""
    needed: bool = True
    """Whether common tasks need it; the others serve a single purpose."""


USER_ASSETS = {
    asset.name: asset
    for asset in (
        UserAsset(
            "smpl_neutral",
            "smpl/SMPL_NEUTRAL",
            (".pkl", ".npz"),
            "bodies of the converted released checkpoints; SMPL instead of the free body",
            "smplify.is.tue.mpg.de (version 1.0.0, the one the release was trained with) or smpl.is.tue.mpg.de"
            " (1.1.0); free registration, research only",
        ),
        UserAsset(
            "smpl_male",
            "smpl/SMPL_MALE",
            (".pkl", ".npz"),
            "ground truth of data sets with gendered bodies (3DPW)",
            "smpl.is.tue.mpg.de; free registration, research only",
            needed=False,
        ),
        UserAsset(
            "smpl_female",
            "smpl/SMPL_FEMALE",
            (".pkl", ".npz"),
            "ground truth of data sets with gendered bodies (3DPW)",
            "smpl.is.tue.mpg.de; free registration, research only",
            needed=False,
        ),
        UserAsset(
            "h36m_regressor",
            "regressors/J_regressor_h36m_correct",
            (".npy",),
            "the 14 joints that MPJPE and PA-MPJPE are measured on",
            "the repository hongsukchoi/Pose2Mesh_RELEASE, data/Human36M/J_regressor_h36m_correct.npy",
        ),
        UserAsset(
            "extra_regressor",
            "regressors/J_regressor_extra",
            (".npy",),
            "the head top as released (without it vertex 411 stands in, some millimetres away)",
            "the data of the repository nkolot/SPIN, J_regressor_extra.npy",
        ),
        UserAsset(
            "vposer",
            "vposer/vposer_v1_0",
            (".pt",),
            "a training of the configuration release from scratch (the released checkpoints carry their own)",
            "smpl-x.is.tue.mpg.de, VPoser v1.0; free registration, research only",
            needed=False,
        ),
    )
}
"""By name."""


def shipped(name: str) -> Path:
    """Path of a shipped file such as "body/free_body.npz"; raises AssetError where it is missing."""
    path = SHIPPED / name
    if not path.is_file():
        raise AssetError(
            "a file of the package is missing",
            where=str(path),
            fix="Install again: pip install --force-reinstall dpmesh.",
        )
    return path


def weights_folder(source: str) -> Path:
    """The folder of weights. source: a folder, or the name of shipped weights. The result may not exist."""
    return Path(source) if os.path.isdir(source) else SHIPPED / source


def asset_folder() -> Path:
    """Folder of imported files: $DPMESH_ASSETS, else dpmesh in $XDG_DATA_HOME, else ~/.local/share/dpmesh."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named).expanduser()
    data = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification wants relative paths ignored.
    return (Path(data) if Path(data).is_absolute() else Path.home() / ".local" / "share") / "dpmesh"


def find_asset(name: str) -> Path | None:
    """Path of one of USER_ASSETS; None where it has not been imported."""
    asset = USER_ASSETS[name]
    for suffix in asset.suffixes:
        path = asset_folder() / (asset.place + suffix)
        if os.path.isfile(path):
            return path
    return None


def require_asset(name: str) -> Path:
    """Path of one of USER_ASSETS. Raises AssetError, with its source, where it has not been imported."""
    path, asset = find_asset(name), USER_ASSETS[name]
    if path is None:
        raise AssetError(
            f"{name} has not been imported",
            where=str(asset_folder()),
            fix=f"Get it from {asset.source}; then: dpmesh assets import FILE.",
        )
    return path


def sha256(path: Path) -> str:
    """Hex digest of a regular file of any size. Raises InputError."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
