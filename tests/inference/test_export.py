"""The files of a result: their content, and that they appear whole or not at all. GLB and OBJ: test_glb.py."""

import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpmesh.errors import ConfigError, OutputError
from dpmesh.geometry.camera import project
from dpmesh.inference import scene_io as export
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.record import MARKER
from dpmesh.inference.scene import Scene

IMAGE = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
FILES = {"overlay.png", "side.png", "scene.glb", "scene.npz", "scene.json"}
MESHES = {f"person_{i:02d}.{end}" for i in range(2) for end in ("obj", "mtl")}


@pytest.fixture
def scene(predictor: Callable[..., Predictor]) -> Scene:
    return predictor()(IMAGE)


def names(folder: Path) -> set[str]:
    """All but the record, which is everywhere."""
    return {path.name for path in folder.iterdir()} - {MARKER}


def test_all_files_and_no_others(scene: Scene, tmp_path: Path) -> None:
    folder = scene.save(tmp_path, "a")
    assert folder == tmp_path / "a"
    assert names(folder) == FILES | MESHES
    assert names(tmp_path) == {"a"}


def test_chosen_formats(scene: Scene, tmp_path: Path) -> None:
    assert names(scene.save(tmp_path, "a", ["npz", "json"])) == {"scene.npz", "scene.json"}
    with pytest.raises(ConfigError, match="fbx"):
        scene.save(tmp_path, "b", ["fbx"])


def test_npz_has_the_promised_arrays(scene: Scene, tmp_path: Path) -> None:
    with np.load(scene.save(tmp_path, "a", ["npz"]) / "scene.npz", allow_pickle=False) as file:
        arrays = dict(file)
    vertices, faces = scene.people[0].vertices.shape[0], len(scene.faces)
    shapes = {
        "image_size": (2,), "K": (3, 3), "boxes": (2, 4), "keypoints2d": (2, 17, 3),
        "global_orient": (2, 3),
        "body_pose": (2, 69), "betas": (2, 10), "transl": (2, 3), "vertices": (2, vertices, 3),
        "faces": (faces, 3), "joints3d": (2, 30, 3), "joints2d": (2, 30, 2), "joint_names": (30,),
        "score": (2,), "joint_sigma": (2, 30),
    }  # fmt: skip
    assert {name: array.shape for name, array in arrays.items()} == shapes
    assert arrays["image_size"].tolist() == [90, 160]
    assert arrays["joint_names"][0] == "Pelvis"
    assert np.isnan(arrays["joint_sigma"]).all()  # this model predicts none
    np.testing.assert_allclose(project(arrays["joints3d"], arrays["K"]), arrays["joints2d"], atol=1e-3)


def test_json_has_the_people_and_the_provenance(scene: Scene, tmp_path: Path) -> None:
    data = json.loads((scene.save(tmp_path, "a", ["json"]) / "scene.json").read_text())
    assert data["schema"] == "dpmesh.scene/1"
    assert data["focal_source"] == "diagonal" and data["weights"] == {
        "name": "fake",
        "provenance": {"data": "none"},
    }
    assert data["image_size"] == [90, 160] and len(data["joint_names"]) == 30
    for stored, person in zip(data["people"], scene.people, strict=True):
        assert "vertices" not in stored and stored["joint_sigma"] is None
        for name in (
            "box",
            "keypoints2d",
            "global_orient",
            "body_pose",
            "betas",
            "transl",
            "joints3d",
            "joints2d",
        ):
            np.testing.assert_allclose(stored[name], getattr(person, name), atol=1e-6)
        K = np.array(data["K"])
        np.testing.assert_allclose(project(np.array(stored["joints3d"]), K), stored["joints2d"], atol=1e-3)


def test_empty_scene_is_written_in_every_format(predictor: Callable[..., Predictor], tmp_path: Path) -> None:
    folder = predictor([])(IMAGE).save(tmp_path, "a")
    assert names(folder) == FILES
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "overlay.png")), IMAGE)
    with np.load(folder / "scene.npz", allow_pickle=False) as file:
        assert file["vertices"].shape[0] == 0 and file["boxes"].shape == (0, 4)
        assert file["joint_sigma"].shape == (0, 30)
    assert json.loads((folder / "scene.json").read_text())["people"] == []
    data = (folder / "scene.glb").read_bytes()
    assert data[:4] == b"glTF" and int.from_bytes(data[8:12], "little") == len(data)


def test_same_scene_same_bytes(scene: Scene, tmp_path: Path) -> None:
    a, b = scene.save(tmp_path, "a"), scene.save(tmp_path, "b")
    for name in names(a) - {"scene.npz"}:  # a zip carries the time
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


def test_existing_result(scene: Scene, predictor: Callable[..., Predictor], tmp_path: Path) -> None:
    folder = scene.save(tmp_path, "a")
    (folder / "mine.txt").write_text("old")
    with pytest.raises(OutputError, match="exists"):
        scene.save(tmp_path, "a")
    assert (folder / "mine.txt").exists()
    predictor([])(IMAGE).save(tmp_path, "a", overwrite=True)
    assert names(folder) == FILES | {"mine.txt"}  # replaced as a whole: no OBJ stayed behind
    assert names(tmp_path) == {"a"}


@pytest.mark.parametrize("when", ["writing", "renaming"])
def test_killed_in_the_middle_leaves_nothing_half_written(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A kill cannot be caught, so the exception here is none that our code handles."""

    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    scene.save(tmp_path, "before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", kill) if when == "renaming" else patch.setattr(Path, "write_bytes", kill)
        with pytest.raises(Killed):
            scene.save(tmp_path, "a")
    assert not (tmp_path / "a").exists()
    scene.save(tmp_path, "a")  # a second run finishes, and clears what was left
    assert names(tmp_path / "a") >= FILES and names(tmp_path) == {"a", "before"}


@pytest.mark.parametrize("formats", [["json"], ["npz", "obj"]])
@pytest.mark.parametrize("moves", range(7))
def test_killed_while_files_are_exchanged(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, formats: list[str], moves: int
) -> None:
    """Until the next run the record is unfinished; that run makes all files again and keeps the user's own."""
    known = replace(scene, source_sha256="0" * 64)
    folder = known.save(tmp_path, "a", ["json", "npz", "obj"])
    (folder / "notes.txt").write_text("mine")
    left, real = [moves], os.replace

    class Killed(BaseException):
        pass

    def counted(a: object, b: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        real(a, b)  # pyright: ignore[reportArgumentType]

    one = replace(known, people=known.people[:1], source_sha256="1" * 64)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted)
        try:
            one.save(tmp_path, "a", formats, overwrite=True)
        except Killed:
            assert moves < 6
    pending = json.loads((folder / MARKER).read_text())["pending"]
    assert bool(pending) == (0 < moves < 6)
    if pending:
        one.save(tmp_path, "a", formats)
    elif moves == 0:
        one.save(tmp_path, "a", formats, overwrite=True)
    assert names(folder) == {"scene.json", "scene.npz", "person_00.obj", "person_00.mtl", "notes.txt"}
    assert len(json.loads((folder / "scene.json").read_text())["people"]) == 1
    with np.load(folder / "scene.npz") as file:
        assert len(file["vertices"]) == 1


def test_names_of_folders(scene: Scene, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "mine.txt").write_text("mine")
    for name in (".", "..", "a/b", "../a", str(tmp_path / "a"), "a\0b"):
        with pytest.raises(OutputError):
            scene.save(out, name)
    for source, name in (
        ("x/..jpg", "..jpg"),
        ("x/...jpg", "...jpg"),
        ("..", "scene"),
        ("", "scene"),
        ("a.b.c", "a.b"),
    ):
        assert replace(scene, source=source).save(out, formats=["json"], overwrite=True) == out / name
    assert names(tmp_path) == {"out", "mine.txt"}


def test_formats_from_python(scene: Scene, tmp_path: Path) -> None:
    """With overwrite a scene's formats are made anew with those that were there; without it they add up."""
    known = replace(scene, source_sha256="0" * 64)
    folder = known.save(tmp_path, "a", ["npz"])
    known.save(tmp_path, "a", ["json"])
    assert names(folder) == {"scene.npz", "scene.json"}
    time = (folder / "scene.npz").stat().st_mtime_ns
    assert known.save(tmp_path, "a", ["npz"]) == folder
    assert (folder / "scene.npz").stat().st_mtime_ns == time
    with pytest.raises(OutputError, match="--max-people was 20, is 3"):
        replace(known, options={"max_people": 3}).save(tmp_path, "a", ["npz"])
    replace(known, options={"max_people": 3}).save(tmp_path, "a", ["obj"], overwrite=True)
    assert names(folder) == {"scene.npz", "scene.json"} | MESHES
    assert (folder / "scene.npz").stat().st_mtime_ns != time
    assert json.loads((folder / "scene.json").read_text())["options"] == {"max_people": 3}


def test_unwritable_folder(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file in the way")
    with pytest.raises(OutputError) as caught:
        scene.save(tmp_path / "file", "a")
    assert "file" in caught.value.where and caught.value.fix


def test_a_full_disk_is_an_output_error(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space"):
        scene.save(tmp_path, "a")
    assert not (tmp_path / "a").exists()


def test_json_without_nan_or_infinity(scene: Scene) -> None:
    broken = scene.people[0].betas.copy()
    broken[0] = np.nan
    person = type(scene.people[0])(**{**vars(scene.people[0]), "betas": broken})
    with pytest.raises(ValueError, match="JSON"):
        json.dump(
            export.as_json(type(scene)(**{**vars(scene), "people": (person,)})),
            io.StringIO(),
            allow_nan=False,
        )


def with_sigma(scene: Scene) -> Scene:
    """1 cm on the left half of each body (joints by their names), 50 cm on the right one."""
    sigma = np.array([0.5 if name.startswith("R_") else 0.01 for name in scene.joint_names], np.float32)
    return replace(scene, people=tuple(replace(person, joint_sigma=sigma) for person in scene.people))


def test_sigma_is_stored_and_colours_the_images(scene: Scene, tmp_path: Path) -> None:
    known = with_sigma(scene)
    plain, coloured = known.save(tmp_path, "a"), known.save(tmp_path, "b", colour="sigma")
    with np.load(coloured / "scene.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["joint_sigma"], known.stacked("joint_sigma"))
    stored = json.loads((coloured / "scene.json").read_text())["people"]
    np.testing.assert_allclose([p["joint_sigma"] for p in stored], known.stacked("joint_sigma"), atol=1e-6)
    for name in ("overlay.png", "side.png"):
        assert (plain / name).read_bytes() != (coloured / name).read_bytes()
    for name in ("scene.glb", "scene.json", "person_00.obj"):
        assert (plain / name).read_bytes() == (coloured / name).read_bytes()


def test_sigma_that_is_not_known_cannot_be_drawn(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="joint_sigma"):
        scene.save(tmp_path, "a", colour="sigma")
    assert not list(tmp_path.iterdir())
    some = replace(scene, people=(with_sigma(scene).people[0], scene.people[1]))
    with pytest.raises(ConfigError, match="joint_sigma"):
        some.save(tmp_path, "a", colour="sigma")
