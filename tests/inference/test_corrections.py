"""Corrections: their file, what they do to a scene, and that the command replays what was done interactively."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dpmesh.errors import InputError
from dpmesh.inference.corrections import SCHEMA, Correction, Corrections, Entry, corrections_record
from dpmesh.inference.options import PredictOptions, differences
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.scene import Scene
from dpmesh.skeletons import COCO17, JOINTS30

Build = Callable[..., Predictor]
PHOTO = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
STEPS = (
    Correction("move", 0, "L_Wrist", pixel=(30.0, 40.5)),
    Correction("move", 0, "R_Knee", point=(0.1, 0.2, 3.0)),
    Correction("hide", 1, "Nose", frame=None),
    Correction("swap", 1, part="arms"),
    Correction("delete", 1),
    Correction("add", box=(1.0, 2.0, 50.0, 80.0)),
)


def test_a_file_gives_its_list_again(tmp_path: Path) -> None:
    written = Corrections((Entry("a.jpg", "00ff", STEPS), Entry("b.jpg", "", STEPS[:1])))
    written.write(tmp_path / "c.json")
    assert Corrections.read(tmp_path / "c.json") == written
    plain = json.loads((tmp_path / "c.json").read_text())
    assert plain["images"][0]["corrections"][0] == {
        "op": "move", "person": 0, "joint": "L_Wrist", "pixel": [30.0, 40.5],
    }  # fmt: skip


def test_entries_belong_to_images_by_content_or_name() -> None:
    listed = Corrections((Entry("x/a.jpg", "aa", STEPS[:1]), Entry("b.jpg", "", STEPS[1:2])))
    assert listed.of("renamed.jpg", "aa") == STEPS[:1] and listed.of("y/b.jpg", "cc") == STEPS[1:2]
    assert listed.of("c.jpg", "dd") == ()
    with pytest.raises(InputError, match=r"a\.jpg are of a file with other content"):
        listed.of("a.jpg", "bb")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"op": "fly", "person": 0}, "unknown op 'fly'"),
        (
            {"op": "move", "person": 0, "joint": "Tail", "pixel": [1, 2]},
            "must be the name of a joint, of Pelvis",
        ),
        ({"op": "move", "person": 0, "joint": "Nose"}, "needs pixel or point, not both"),
        ({"op": "move", "person": 0, "joint": "Nose", "pixel": [1, float("nan")]}, "two finite numbers"),
        ({"op": "move", "person": 0, "joint": "Nose", "point": [0, 0, -1]}, "before the camera"),
        ({"op": "move", "person": -1, "joint": "Nose", "pixel": [1, 2]}, "a number from 0"),
        ({"op": "move", "person": True, "joint": "Nose", "pixel": [1, 2]}, "a number from 0"),
        ({"op": "hide", "person": 0, "joint": ["Nose"]}, "joint of hide must be"),
        ({"op": "swap", "person": 0, "part": "head"}, "part must be of"),
        ({"op": "delete", "person": 0, "joint": "Nose"}, "delete takes no joint"),
        ({"op": "delete"}, "delete needs person"),
        ({"op": "add", "box": [5, 5, 5, 9]}, "x1 < x2"),
        ({"op": "add", "box": [1, 2, 3, 4], "keypoints": [[1, 1, 1]] * 17}, "not both"),
        ({"op": "add", "keypoints": [[1, 1, 2]] * 17}, "confidence in"),
        ({"op": "delete", "person": 0, "who": 1}, "unknown field 'who'"),
        ("delete", "has no op"),
    ],
)
def test_what_a_file_must_not_hold(tmp_path: Path, broken: object, message: str) -> None:
    images = [{"source": "a.jpg", "sha256": "", "corrections": [broken]}]
    (tmp_path / "c.json").write_text(json.dumps({"schema": SCHEMA, "images": images}))
    with pytest.raises(InputError, match=message) as error:
        Corrections.read(tmp_path / "c.json")
    assert "c.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [[], {"schema": "dpmesh.scene/1"}, {"schema": SCHEMA, "images": {}}])
def test_another_file_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"c\.json"):
        PredictOptions(corrections=tmp_path / "c.json")


def test_records_compare_the_list() -> None:
    one, two = (PredictOptions().record() | {"corrections": corrections_record(STEPS[:n])} for n in (1, 2))
    assert differences(one, two) == ["--corrections was 1 correction, is 2 corrections"]
    assert differences(PredictOptions().record(), one) == ["--corrections was not set, is 1 correction"]
    old = {name: value for name, value in PredictOptions().record().items() if name != "hypotheses"}
    assert differences(old, PredictOptions().record() | {"corrections": None}) == []


def test_numbers_stay_through_deleting_and_adding(predictor: Build) -> None:
    build = predictor()
    scene = build(PHOTO)
    box = (20.0, 10.0, 90.0, 80.0)
    steps = [
        Correction("delete", 0),
        Correction("add", box=box),
        Correction("move", 2, "L_Wrist", pixel=(60.0, 40.0)),
    ]
    result = build.correct(scene, steps)
    assert len(result) == 2 and result[0] is scene[1]
    np.testing.assert_allclose(result[1].box, box)
    assert result[1].corrected == ("add", "move L_Wrist") and result[0].corrected == ()
    np.testing.assert_allclose(result[1].keypoints2d[COCO17.index("L_Wrist")], [60, 40, 1])
    for wrong in ([*steps, Correction("hide", 0, "Nose")], [Correction("hide", 5, "Nose")]):
        with pytest.raises(InputError, match=r"person [05] "):
            build.correct(scene, wrong)
    with pytest.raises(InputError, match="corrected already"):
        build.correct(result, steps)
    with pytest.raises(InputError, match="of a video"):
        build.correct(scene, [Correction("hide", 0, "Nose", frame=3)])


def test_keypoints_are_edited_in_order(predictor: Build) -> None:
    build = predictor()
    scene = build(PHOTO)
    before = scene[0].keypoints2d
    left, right = (COCO17.index(f"{side}_Wrist") for side in "LR")
    swapped = build.correct(scene, [Correction("swap", 0, part="arms")])[0].keypoints2d
    np.testing.assert_array_equal(swapped[[left, right]], before[[right, left]])
    legs = [COCO17.index(f"{side}_Knee") for side in "LR"]
    np.testing.assert_array_equal(swapped[legs], before[legs])
    moves = [Correction("move", 0, "L_Wrist", pixel=(33.0, 44.0)), Correction("swap", 0)]
    moved = build.correct(scene, moves)[0].keypoints2d
    np.testing.assert_allclose(
        moved[right], [33, 44, 1]
    )  # it was moved as the left, and is the right one now
    hidden = build.correct(scene, [moves[0], Correction("hide", 0, "L_Wrist")])[0]
    assert hidden.keypoints2d[left, 2] == 0 and hidden.corrected == ("hide L_Wrist",)


def test_a_shorter_list_undoes_and_a_stored_one_gives_the_same(predictor: Build, tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    build = predictor()
    scene = build(tmp_path / "a.png")
    steps = [Correction("move", 0, "L_Wrist", pixel=(35.0, 40.0)), Correction("hide", 1, "R_Ankle")]
    both, first = build.correct(scene, steps), build.correct(scene, steps[:1])
    assert first[1] is scene[1] and first[0].joints2d[20] == pytest.approx(both[0].joints2d[20], abs=1e-3)
    assert build.correct(scene, []) is scene
    listed = Corrections((Entry("a.png", scene.source_sha256, tuple(steps)),))
    listed.write(tmp_path / "c.json")
    again = predictor()(tmp_path / "a.png", corrections=tmp_path / "c.json")
    np.testing.assert_array_equal(again.stacked("vertices"), both.stacked("vertices"))
    folder = both.save(tmp_path / "out", formats=["npz", "json"])
    assert again.save(tmp_path / "out", formats=["npz", "json"]) == folder  # the same result: kept
    loaded = Scene.load(folder)
    assert loaded.corrections == both.corrections and loaded[1].corrected == ("hide R_Ankle",)
    plain = json.loads((folder / "scene.json").read_text())
    assert plain["people"][0]["corrected"][0] == "move L_Wrist" and len(plain["corrections"]) == 2
    assert (
        "corrected"
        not in json.loads((scene.save(tmp_path / "plain", formats=["json"]) / "scene.json").read_text())[
            "people"
        ][0]
    )


@pytest.mark.parametrize("target", [{"pixel": (20000.0, -20000.0)}, {"point": (50.0, 0.0, 1.0)}])
def test_a_target_far_outside_the_image_is_refused(predictor: Build, target: dict[str, Any]) -> None:
    build = predictor()
    with pytest.raises(InputError, match="far outside"):
        build.correct(build(PHOTO), [Correction("move", 0, "L_Wrist", **target)])


def test_a_target_that_no_body_reaches_is_noted(predictor: Build, tmp_path: Path) -> None:
    """It would be another body, at another place, or behind the camera."""
    build = predictor()
    scene = build(PHOTO)
    far = build.correct(scene, [Correction("move", 0, "L_Wrist", pixel=(310.0, 175.0))])
    assert far.notes == (*scene.notes, "person 0 is hardly a body any more: L_Wrist moved too far?")
    assert json.loads((far.save(tmp_path, formats=["json"]) / "scene.json").read_text())["notes"]
    x, y = (float(v) for v in scene[0].joints2d[JOINTS30.index("L_Wrist")])
    assert build.correct(scene, [Correction("move", 0, "L_Wrist", pixel=(x + 1, y))]).notes == scene.notes
    close = replace(
        scene,
        people=tuple(replace(p, vertices=p.vertices - np.array([0, 0, 9], np.float32)) for p in scene.people),
    )
    assert build.correct(close, [Correction("delete", 1)]).notes == scene.notes  # nobody was moved


def test_corrections_of_other_images_alone_are_refused(tmp_path: Path) -> None:
    Corrections((Entry("park.jpg", "", STEPS[:1]), Entry("b.jpg", "00", STEPS[:1]))).write(
        tmp_path / "c.json"
    )
    options = PredictOptions(corrections=tmp_path / "c.json")
    options.refuse_foreign_corrections([tmp_path / "other" / "park.jpg"])
    Image.fromarray(PHOTO).save(tmp_path / "x.png")
    with pytest.raises(InputError, match="none of these images"):
        options.refuse_foreign_corrections([tmp_path / "x.png"])
