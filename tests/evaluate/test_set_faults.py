"""Missing and damaged files of an evaluation set: an error names the file and the next command."""

import json
from pathlib import Path

import pytest

from dpmesh.errors import DPMeshError
from dpmesh.evaluate.registry import open_source


def test_missing_smpl_is_said_with_the_next_command(twin, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("DPMESH_ASSETS", str(tmp_path / "none"))
    with pytest.raises(DPMeshError, match=r"h36m_regressor has not been imported.*dpmesh assets import FILE"):
        open_source("3dpw", twin.data)
    (tmp_path / "none" / "regressors").mkdir(parents=True)
    name = "regressors/J_regressor_h36m_correct.npy"
    (tmp_path / "none" / name).symlink_to(twin.root / "assets" / name)
    with pytest.raises(DPMeshError, match=r"smpl_male has not been imported.*dpmesh assets import FILE"):
        open_source("3dpw", twin.data)
    with pytest.raises(DPMeshError, match=r"smpl_neutral has not been imported"):
        open_source("3doh", twin.data)
    assert len(open_source("panoptic-haggling", twin.data)) == 4  # measured joints need no body


def test_what_is_missing_is_named(twin, official, tmp_path: Path):
    for name, data, message in (
        ("3dpw", tmp_path, "neither 3DPW_latest_test.json nor sequenceFiles"),
        ("3doh", tmp_path, "annots.json exists"),
        ("panoptic-pizza", twin.data, "160906_pizza1 was not found"),
        ("3dpw-crowd", official, "HigherHRNet's keypoints are filed.*3dpw-crowd@as-run"),
        ("3dpw", tmp_path / "none", "no such folder"),
    ):
        with pytest.raises(DPMeshError, match=message):
            open_source(name, data)
    with pytest.raises(DPMeshError, match="needs its data set"):
        open_source("3dpw", None)
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "3DOH50K").symlink_to(twin.data / "3DOH50K")
    with pytest.raises(DPMeshError, match=r"no detected keypoints.*3doh@detector"):
        open_source("3doh", tmp_path / "o")


def broken(twin, tmp_path: Path, change) -> Path:
    data = json.loads((twin.data / "3DPW" / "3DPW_latest_test.json").read_text())
    change(data)
    (tmp_path / "3DPW").mkdir(exist_ok=True)
    (tmp_path / "3DPW" / "3DPW_latest_test.json").write_text(json.dumps(data))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["annotations"][3].pop("openpose_result"), r"annotations\[3\]: the field 'openpose_result'"),
        (lambda d: d["annotations"][1]["smpl_param"].update(gender="x"), "gender 'x' is neither"),
        (lambda d: d["annotations"][1]["smpl_param"]["pose"].pop(), r"smpl_param.pose: 71 instead of 72"),
        (lambda d: d["annotations"][2].update(image_id=-1), "image_id -1 is not among"),
        (lambda d: d["annotations"][2]["bbox"].__setitem__(0, None), r"annotations\[2\].bbox"),
        (lambda d: d.update(images=7), "images is not a list"),
        (lambda d: d.update(annotations=[d["annotations"][0]] * 2), "two persons of the files have one name"),
        (lambda d: d.update(annotations=[]), "no person of this protocol"),
    ],
)  # fmt: skip
def test_faults_of_the_json(twin, tmp_path: Path, change, message: str):
    with pytest.raises(DPMeshError, match=message):
        open_source("3dpw", broken(twin, tmp_path, change))


def test_a_pickle_runs_nothing(twin, official, tmp_path: Path):
    import os
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    folder = tmp_path / "evil" / "3DPW" / "sequenceFiles" / "test"
    folder.mkdir(parents=True)
    (folder / "a_00.pkl").write_bytes(pickle.dumps({"poses": Evil()}, protocol=2))
    with pytest.raises(DPMeshError, match=r"a_00\.pkl: the pickle asks for \w+\.mkdir.*nothing was run"):
        open_source("3dpw", tmp_path / "evil")
    assert not (tmp_path / "ran").exists()
    (folder / "a_00.pkl").write_bytes(b"\x80\x02}q")
    with pytest.raises(DPMeshError, match="damaged"):
        open_source("3dpw", tmp_path / "evil")


def test_an_image_of_another_size_is_refused(twin, opened, tmp_path: Path):
    data = broken(twin, tmp_path, lambda d: [i.update(width=400) for i in d["images"]])
    (tmp_path / "3DPW" / "imageFiles").symlink_to(twin.data / "3DPW" / "imageFiles")
    with pytest.raises(DPMeshError, match=r"320×240, annotated as 400×240"):
        open_source("3dpw", data).persons([0])
