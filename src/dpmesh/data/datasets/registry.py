"""Readers of the data sets' own files. Each parses only: people as `data.person.Person`, nothing drawn at random."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dpmesh.data.annotation import Person
from dpmesh.data.datasets import coco, crowdpose, h36m, muco, threedpw
from dpmesh.data.datasets.files import Reading, first_folder


@dataclass(frozen=True)
class Set:
    """A data set: its folders below ROOT (3DCrowdNet's and JOTR's names), what it teaches, its splits."""

    name: str
    title: str
    folders: tuple[str, ...]
    measured: bool  # 3D joints, or keypoints alone
    splits: tuple[str, ...]
    read: Callable[[Reading], Iterator[Person]]

    def folder(self, root: Path) -> Path:
        return first_folder(root, *self.folders)


SETS = {
    item.name: item
    for item in (
        Set("h36m", "Human3.6M", ("Human36M",), True, ("train",), h36m.read),
        Set("muco", "MuCo-3DHP", ("MuCo",), True, ("train",), muco.read),
        Set("coco", "MSCOCO", ("MSCOCO",), False, ("train", "validation"), coco.read),
        Set("crowdpose", "CrowdPose", ("CrowdPose",), False, ("train", "validation"), crowdpose.read),
        Set("3dpw", "3DPW", ("PW3D/data", "3DPW"), True, ("train", "validation"), threedpw.read),
    )
}
"""The sets by the names that configurations and `dpmesh data` use."""

__all__ = ["SETS", "Reading", "Set"]
