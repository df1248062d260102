"""Damaged and hostile files of the evaluation sets: an InputError of one line, and a truth is never NaN."""

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpmesh.errors import InputError
from dpmesh.evaluate.protocol import Protocol
from dpmesh.evaluate.readers import panoptic, threedoh, threedpw
from dpmesh.evaluate.registry import entry
from dpmesh.evaluate.results import read_arrays

SETS = {
    "3dpw": (threedpw.read_json_files, "3DPW", "3DPW/3DPW_latest_test.json"),
    "3doh": (threedoh.read_jotr, "OH3D", f"OH3D/{threedoh.JOTR_FILE}"),
    "3doh@as-run": (threedoh.read_official, "3DOH50K/testset/annots.json", "3DOH50K/testset/annots.json"),
    "panoptic-haggling": (panoptic.read, "Panoptic", "Panoptic/processed/annotations/160422_haggling1.pkl"),
    "3dpw@as-run": (threedpw.read_sequences, "3DPW", "3DPW/sequenceFiles/test/downtown_cafe_00.pkl"),
}
"""Protocol: its reader, the reader's folder or file, and the file that is damaged."""


def protocol_of(name: str) -> Protocol:
    asked = "3doh@detector" if name == "3doh@as-run" else name
    return entry(asked).protocol


def load(path: Path) -> Any:
    data = path.read_bytes()
    return json.loads(data) if path.suffix == ".json" else pickle.loads(data, encoding="latin1")  # noqa: S301


def dump(path: Path, content: Any) -> None:
    path.write_bytes(json.dumps(content).encode() if path.suffix == ".json" else pickle.dumps(content, 2))


@pytest.fixture
def copied(twin: Any, tmp_path: Path) -> Path:
    """The annotation files, and of the images the first of each sequence, from which 3DPW's size is taken."""
    for path in twin.data.rglob("*"):
        if path.suffix in (".json", ".pkl") or path.name == "image_00000.jpg":
            target = tmp_path / path.relative_to(twin.data)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return tmp_path


def read(name: str, root: Path) -> Any:
    reader, at, _ = SETS[name]
    return reader(protocol_of(name), root / at)


def one(content: Any) -> Any:
    """The first entry of a table by name, or of a list."""
    return content[sorted(content)[0]] if isinstance(content, dict) else content[0]


BAD: list[tuple[str, Callable[[Any], Any]]] = [
    *[
        ("3dpw", change)
        for change in (
            lambda c: c["annotations"][0]["smpl_param"].update(pose=[float("nan")] * 72),
            lambda c: c["annotations"][0]["smpl_param"].update(trans=[1e300, 0, 0]),
            lambda c: c["annotations"][0]["smpl_param"].update(shape=[0.0] * 9),
            lambda c: c["annotations"][0]["smpl_param"].update(gender=[]),
            lambda c: c["annotations"][0].update(image_id=[]),
            lambda c: c["annotations"][0].update(person_id="first"),
            lambda c: [a.update(bbox=[10**400, 0, 1, 1]) for a in c["annotations"]],
            lambda c: [i.update(id={}) for i in c["images"]],
            lambda c: [i.update(file_name="../../x.jpg") for i in c["images"]],
            lambda c: [i.update(file_name="x" * 300) for i in c["images"]],
            lambda c: [i.update(height=0) for i in c["images"]],
            lambda c: [i.update(frame_idx=1e999) for i in c["images"]],
            lambda c: [i["cam_param"].update(focal=[0.0, 0.0]) for i in c["images"]],
        )
    ],
    ("3doh", lambda c: one(c).update(pose=[float("inf")] * 72)),
    ("3doh", lambda c: one(c).update(shape=[[]])),
    ("3doh", lambda c: c.update({"/": one(c)})),
    ("3doh@as-run", lambda c: one(c).update(intri=[[0.0] * 3] * 3)),
    ("3doh@as-run", lambda c: one(c).update(extri=[[0.0] * 4] * 3)),
    ("3doh@as-run", lambda c: one(c).update(img_path="x" * 300)),
    ("panoptic-haggling", lambda c: c[0].update(filename="../../../x.jpg")),
    ("panoptic-haggling", lambda c: c[0].update(filename="/etc/passwd")),
    ("panoptic-haggling", lambda c: c[0].update(height=0)),
    ("panoptic-haggling", lambda c: c[0].update(kpts3d=c[0]["kpts3d"] * np.nan)),
    ("panoptic-haggling", lambda c: c.append(None)),
    ("3dpw@as-run", lambda c: c.update(cam_intrinsics=np.zeros((3, 3)))),
    ("3dpw@as-run", lambda c: c.update(cam_poses=2 * np.asarray(c["cam_poses"]))),
    ("3dpw@as-run", lambda c: c.update(genders=3)),
    ("3dpw@as-run", lambda c: c.update(betas=[])),
    ("3dpw@as-run", lambda c: c.update(poses=[p * np.nan for p in c["poses"]])),
]


@pytest.mark.parametrize(("name", "change"), BAD)
def test_a_damaged_file_is_one_line(copied: Path, name: str, change: Callable[[Any], Any]) -> None:
    path = copied / SETS[name][2]
    content = load(path)
    change(content)
    dump(path, content)
    with pytest.raises(InputError) as error:
        read(name, copied)
    assert str(copied) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", SETS)
def test_whole_files_are_read_and_images_lie_inside(copied: Path, name: str) -> None:
    records, _ = read(name, copied)
    assert records and all(record.image.resolve().is_relative_to(copied) for record in records)


def test_foreign_folders_in_a_name_are_not_gone_to(copied: Path) -> None:
    """The official 3DOH file may name its images with the folders of the machine that it was made on."""
    path = copied / SETS["3doh@as-run"][2]
    content = load(path)
    for row in content.values():
        row["img_path"] = (
            "D:\\work\\3DOH\\images\\" + str(row["img_path"]).replace("\\", "/").rpartition("/")[2]
        )
    dump(path, content)
    records, _ = read("3doh@as-run", copied)
    assert all(record.image.parent in (path.parent, path.parent / "images") for record in records)


@pytest.mark.parametrize("name", ["3dpw", "3doh"])
def test_a_fifo_is_no_file_of_a_set(copied: Path, name: str) -> None:
    path = copied / SETS[name][2]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="not a regular file"):
        read(name, copied)


def test_a_member_of_a_results_rows_that_is_no_array(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "rows.npz", "w") as archive:
        archive.writestr("about.npy", b"text")
    with pytest.raises(InputError, match="about is no array"):
        read_arrays(tmp_path / "rows.npz")
