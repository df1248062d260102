"""Damaged and hostile annotation files: one line that names the file, and no path outside the root."""

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpmesh.data.annotation import damage
from dpmesh.data.images import decode_rgb, read_bytes
from dpmesh.data.sources import read_folder
from dpmesh.errors import DPMeshError, InputError

Sets = tuple[Path, dict[str, Any]]


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed))


MUCO, COCO = "MuCo/MuCo-3DHP.json", "MSCOCO/annotations/person_keypoints_train2017.json"
CROWD, H36M = "CrowdPose/annotations/crowdpose_train.json", "Human36M/annotations/Human36M_subject1_"


@pytest.mark.parametrize(
    "name", ["../../x.jpg", "/etc/passwd", "a/../../../x.jpg", "a\0b.jpg", "x" * 300, "..\\..\\x", ""]
)
@pytest.mark.parametrize(
    ("kind", "file"), [("muco", MUCO), ("coco", COCO), ("crowdpose", CROWD), ("h36m", f"{H36M}data.json")]
)
def test_names_in_files_never_leave_the_set(
    sets: Sets, tmp_path: Path, kind: str, file: str, name: str
) -> None:
    annotations(sets, tmp_path, file)
    edit(
        tmp_path / file,
        lambda content: [image.update(file_name=name) for image in content["images"]] and None,
    )
    with pytest.raises(InputError, match="no name of a file inside"):
        read_folder(kind, tmp_path, fits="none")


def annotations(sets: Sets, root: Path, file: str) -> None:
    """The JSON files of a set, without its images."""
    top = Path(file).parts[0]
    for path in (sets[0] / top).rglob("*.json"):
        copied = root / path.relative_to(sets[0])
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copied)


def first(content: Any) -> Any:
    return content["images"][0]


@pytest.mark.parametrize(
    ("kind", "file", "change"),
    [
        ("muco", MUCO, lambda c: first(c).update(f=[0.0, 1.0])),
        ("muco", MUCO, lambda c: first(c).update(f=[1500.0, -1.0])),
        ("muco", MUCO, lambda c: first(c).update(c=[1e999, 1.0])),
        ("muco", MUCO, lambda c: first(c).update(c=[10**400, 1.0])),
        ("muco", MUCO, lambda c: c["annotations"][0]["keypoints_cam"][0].__setitem__(0, float("nan"))),
        ("muco", MUCO, lambda c: c["annotations"][0].pop("bbox") and None),
        ("muco", MUCO, lambda c: first(c).update(width="wide")),
        ("coco", COCO, lambda c: c["annotations"][0].update(image_id=[])),
        ("coco", COCO, lambda c: c["annotations"].append(None)),
        ("coco", COCO, lambda c: first(c).update(width=10**400)),
        ("crowdpose", CROWD, lambda c: c["annotations"][0].update(keypoints=[None])),
        ("h36m", f"{H36M}camera.json", lambda c: [view.update(f=[0, 0]) for view in c.values()] and None),
        ("h36m", f"{H36M}camera.json", lambda c: [view.pop("R") for view in c.values()] and None),
        ("h36m", f"{H36M}joint_3d.json", lambda _: 3),
    ],
)  # fmt: skip
def test_a_wrong_field_is_one_line(
    sets: Sets, tmp_path: Path, kind: str, file: str, change: Callable[[Any], Any]
) -> None:
    annotations(sets, tmp_path, file)
    edit(tmp_path / file, change)
    with pytest.raises(InputError) as error:
        read_folder(kind, tmp_path, fits="none")
    assert Path(file).parts[0] in str(error.value) or kind in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_a_person_of_whom_nothing_can_be_computed_is_counted(
    sets: Sets, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A joint in the plane of the camera has no place in the image: division by zero, and no error of the file."""
    annotations(sets, tmp_path, MUCO)
    content = json.loads((tmp_path / MUCO).read_text())
    for annotation in content["annotations"]:
        if annotation["image_id"] == content["images"][0]["id"]:
            annotation["keypoints_cam"][5][2] = 0.0
    (tmp_path / MUCO).write_text(json.dumps(content))
    source = read_folder("muco", tmp_path, fits="none")
    assert source.dropped["a number of the record is not finite, or beyond anything measured"] == 1
    assert "muco/" in caplog.text


def test_only_regular_annotation_files_are_read(sets: Sets, tmp_path: Path) -> None:
    annotations(sets, tmp_path, MUCO)
    (tmp_path / MUCO).unlink()
    os.mkfifo(tmp_path / MUCO)
    with pytest.raises(InputError, match="not a regular file"):
        read_folder("muco", tmp_path, fits="none")


VALUES = (None, 1e999, 1e300, 10**400, "", "../x", [], {}, -1, 0, [[]], "x" * 300)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of values in a JSON value; of long lists their ends."""
    paths = [at] if at else []
    if isinstance(value, dict):
        for key in value:
            paths += places(value[key], (*at, key))
    elif isinstance(value, list):
        for i in range(len(value)) if len(value) < 4 else (0, len(value) - 1):
            paths += places(value[i], (*at, i))
    return paths


@pytest.mark.parametrize(("kind", "file"), [("muco", MUCO), ("crowdpose", CROWD), ("coco", COCO)])
def test_mutated_annotations(sets: Sets, tmp_path: Path, kind: str, file: str) -> None:
    annotations(sets, tmp_path, file)
    good, refused = json.loads((tmp_path / file).read_text()), 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        bad = copy.deepcopy(good)
        *at, last = places(bad)[int(rng.integers(len(places(bad))))]
        inner = bad
        for key in at:
            inner = inner[key]
        if seed % 4:
            inner[last] = VALUES[int(rng.integers(len(VALUES)))]
        else:
            del inner[last]
        (tmp_path / file).write_text(json.dumps(bad))
        try:
            for person in read_folder(kind, tmp_path, fits="none").people:
                assert not damage(person) and person.image.is_relative_to(tmp_path)
        except DPMeshError as error:
            assert "\n" not in str(error)
            refused += 1
    assert 10 < refused < 60, refused


def test_images_of_data_sets_are_bounded(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    for path, says in (
        (tmp_path / "a.jpg", "not a regular file"),
        (tmp_path, "folder"),
        (tmp_path / "b", "no such"),
    ):
        with pytest.raises(InputError, match=says):
            read_bytes(path)
    with pytest.raises(InputError, match="not an image"):
        decode_rgb(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "x.jpg")
