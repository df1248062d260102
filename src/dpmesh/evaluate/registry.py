"""Every protocol by name, and the function that opens its source. A new data set is one more entry here."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dpmesh.data.sources import SETS
from dpmesh.errors import ConfigError, InputError
from dpmesh.evaluate.interfaces import Census, EvaluationSource, PersonRecord
from dpmesh.evaluate.packed import open_packed
from dpmesh.evaluate.protocol import Protocol, WholeImage
from dpmesh.evaluate.published_protocols import standard_protocols
from dpmesh.evaluate.readers import panoptic, pose2sim, threedoh, threedpw
from dpmesh.evaluate.sources import DiskSource
from dpmesh.evaluate.synthocc import SynthOcc, synthocc_protocols
from dpmesh.evaluate.synthocc_video import ClipSource, video_protocols
from dpmesh.evaluate.whole_images import WholeImageSource

Read = tuple[list[PersonRecord], Census]


@dataclass(frozen=True)
class Entry:
    """open: the protocol's source from the root of the data sets, which may be None unless `needs_data`."""

    protocol: Protocol
    open: Callable[[Protocol, Path | None], EvaluationSource]
    needs_data: bool = True


def register() -> dict[str, Entry]:
    """Every entry by its protocol's full name."""
    entries: dict[str, Entry] = {}
    for protocol in standard_protocols():
        entries[protocol.full_name] = Entry(protocol, _open_files)
    for protocol in synthocc_protocols():
        entries[protocol.full_name] = Entry(protocol, SynthOcc, needs_data=False)
    for protocol in video_protocols():
        entries[protocol.full_name] = Entry(protocol, ClipSource, needs_data=False)
    return entries


def entry(name: str) -> Entry:
    """A protocol by its full name, or of a folder of packed people. Raises ConfigError if it is neither, InputError for
    a folder that cannot be evaluated."""
    entries = register()
    if name in entries:
        return entries[name]
    if os.path.isdir(name) or Path(name).parent != Path():
        source = open_packed(Path(name))
        return Entry(source.protocol, lambda protocol, data: source, needs_data=False)
    raise ConfigError(
        f"there is no protocol {name!r}",
        fix=f"There are: {', '.join(entries)} (dpmesh eval list); or name a folder that dpmesh data pack wrote.",
    )


def open_source(name: str, data: Path | None) -> EvaluationSource:
    """The people of a protocol. Raises ConfigError, InputError, AssetError."""
    return open_set(name, data)[1]


def open_set(name: str, data: Path | None) -> tuple[Protocol, EvaluationSource]:
    """A protocol and its people; name and errors as for `entry` and `open_source`."""
    registered = entry(name)
    if registered.needs_data and data is None:
        raise InputError(
            f"the protocol {name} needs its data set",
            where="--data",
            fix="Name the folder that holds it; docs/guide/evaluation.md describes its layout.",
        )
    return registered.protocol, registered.open(registered.protocol, data)


def data_files(registered: Entry, data: Path) -> dict[str, str] | None:
    """The SHA-256 of each file of an entry's data set; None if it reads no files. Errors as for `open_set`."""
    return dict(_read(registered.protocol, data)[1].files) if registered.needs_data else None


def _read(protocol: Protocol, data: Path) -> Read:
    if not os.path.isdir(data):
        raise InputError(
            "there is no such folder", where=str(data), fix="Set --data to the root of the data sets."
        )
    return _READERS[protocol.selection.dataset.partition("-")[0]](protocol, data)


def _open_files(protocol: Protocol, data: Path | None) -> EvaluationSource:
    assert data is not None
    records, census = _read(protocol, data)
    if not records:
        raise InputError("no person of this protocol in the files", where=str(data))
    if len({record.id for record in records}) < len(records):
        raise InputError(
            "two persons of the files have one name", where=str(data), fix="Download them again."
        )
    source = WholeImageSource if isinstance(protocol.crop, WholeImage) else DiskSource
    return source(protocol, records, census)


def _read_3dpw(protocol: Protocol, data: Path) -> Read:
    """From the first folder with the protocol's JSON or the official sequences: 3DPW/, training's folders
    (data/datasets), the root itself."""
    file = threedpw.FILES[protocol.selection.dataset]
    folders = list(dict.fromkeys([data / "3DPW", *(data / name for name in SETS["3dpw"].folders), data]))
    for folder in folders:
        if (folder / file).is_file():
            return threedpw.read_json_files(protocol, folder)
        if (folder / "sequenceFiles").is_dir():
            return threedpw.read_sequences(protocol, folder)
    raise InputError(
        f"no 3DPW: neither {file} nor sequenceFiles/",
        where=" or ".join(str(folder) for folder in folders),
        fix="docs/guide/evaluation.md says how to get 3DPW.",
    )


def _read_3doh(protocol: Protocol, data: Path) -> Read:
    folders = [folder for folder in (data / "OH3D", data / "3DOH", data / "3DOH50K", data) if folder.is_dir()]
    for folder in folders:
        if (folder / threedoh.JOTR_FILE).is_file():
            return threedoh.read_jotr(protocol, folder)
    for folder in folders:
        for path in (folder / "testset" / "annots.json", folder / "annots.json"):
            if path.is_file():
                return threedoh.read_official(protocol, path)
    raise InputError(
        f"neither OH3D/{threedoh.JOTR_FILE} nor testset/annots.json exists",
        where=str(data),
        fix="docs/guide/evaluation.md says how to get 3DOH.",
    )


def _read_panoptic(protocol: Protocol, data: Path) -> Read:
    return panoptic.read(protocol, data / "Panoptic" if (data / "Panoptic").is_dir() else data)


def _read_pose2sim(protocol: Protocol, data: Path) -> Read:
    return pose2sim.read(protocol, data / "Pose2Sim" if (data / "Pose2Sim").is_dir() else data)


_READERS = {"3dpw": _read_3dpw, "3doh": _read_3doh, "panoptic": _read_panoptic, "pose2sim": _read_pose2sim}
