"""The user's person and pose models: tiny ONNX graphs in the layouts of published models, made here."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import (
    HEIGHT,
    MEAN,
    STD,
    WIDTH,
    constant,
    heatmap_model,
    person_model,
    pixel_values,
    save,
    simcc_model,
)

from dpmesh.cli.main import main
from dpmesh.errors import ConfigError, DPMeshError, InputError
from dpmesh.inference.detections import PersonDetector
from dpmesh.inference.detector import Detector
from dpmesh.inference.options import ModelOptions, differences
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.user_models import onnx_file
from dpmesh.inference.user_models.person import PersonModel
from dpmesh.inference.user_models.pose import PoseModel, decode_heatmaps, window_of
from dpmesh.inference.user_models.rtmlib import RTMLibDetector
from dpmesh.skeletons import COCO17, JOINTS30

BOX = np.asarray([100, 50, 220, 290], np.float32)
DOTS = {0: (150.0, 90.0), 1: (120.0, 200.0), 2: (205.0, 270.0)}
"""Joint -> where the image has a dot of its colour: red, green, blue."""


def dots() -> np.ndarray:
    """An RGB image 400 wide and 320 high, black but for three blurred dots."""
    y, x = np.mgrid[:320, :400]
    image = np.zeros((320, 400, 3))
    for channel, (u, v) in DOTS.items():
        image[..., channel] = 255 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 8.0**2))
    return image.astype(np.uint8)


def assert_dots(model: PoseModel, tolerance: float = 1.5) -> None:
    found = model.detect(dots(), BOX, 0.7)
    for joint, place in DOTS.items():
        np.testing.assert_allclose(found.keypoints[joint, :2], place, atol=tolerance)
    assert (found.keypoints[:3, 2] > 0.85).all() and not found.keypoints[3:, 2].any()
    assert found.score == 0.7 and np.array_equal(found.box, BOX)


@pytest.mark.parametrize("kind", ["tinypose", "vitpose", "rtmpose", "rtmpose, y first"])
def test_keypoints_of_each_layout(kind: str, tmp_path: Path) -> None:
    """The dots are found where they are: crop, normalisation, order of channels and decoding are right."""
    path = tmp_path / "pose.onnx"
    if kind == "tinypose":
        heatmap_model(path)
    elif kind == "vitpose":
        heatmap_model(path, "heatmap", batch="batch", before="Identity")
    else:
        simcc_model(path, swapped="y first" in kind)
    assert_dots(PoseModel(path))


def test_joints_by_number_and_by_name(tmp_path: Path) -> None:
    path = heatmap_model(tmp_path / "halpe.onnx", joints=26)
    assert PoseModel(path).joints.name == "HALPE-26"
    odd = heatmap_model(tmp_path / "odd.onnx", joints=14)
    with pytest.raises(ConfigError, match=r'order of its 14 joints is unknown.*odd\.toml.*joints = "coco17"'):
        PoseModel(odd)
    (tmp_path / "odd.toml").write_text('joints = "crowdpose"')
    found = PoseModel(odd).detect(dots(), BOX, 1.0)
    np.testing.assert_allclose(found.keypoints[COCO17.index("L_Shoulder"), :2], DOTS[0], atol=1.5)
    np.testing.assert_allclose(found.keypoints30[JOINTS30.index("R_Shoulder"), :2], DOTS[1], atol=1.5)
    (tmp_path / "odd.toml").write_text('joints = "coco17"')
    with pytest.raises(ConfigError, match="joints has 17, the model has 14"):
        PoseModel(odd)


def test_settings_override_the_defaults(tmp_path: Path) -> None:
    """A graph that normalises by itself is refused until the file says what it takes."""
    path = heatmap_model(tmp_path / "own.onnx", before="Mul")
    with pytest.raises(
        ConfigError, match=r"begins with Mul.*own\.toml.*mean = .*; std = .*; colour = "
    ) as refusal:
        PoseModel(path)
    assert "\n" not in str(refusal.value)
    text = f'mean = {MEAN.tolist()}\nstd = {STD.tolist()}\ncolour = "rgb"\n'
    (tmp_path / "own.toml").write_text(text)
    assert_dots(PoseModel(path))
    (tmp_path / "own.toml").write_text(text.replace("rgb", "bgr") + "score_max = 2.0\npadding = 1.5")
    model = PoseModel(path)
    found = model.keypoints(dots(), BOX)
    np.testing.assert_allclose(found[0, :2], DOTS[2], atol=1.8)  # the first channel is blue now
    assert model.padding == 1.5 and 0.3 < found[0, 2] < 0.6


def test_a_file_of_bytes_is_refused_until_its_normalisation_is_known(tmp_path: Path) -> None:
    node, constants = pixel_values(17, 4, np.zeros(3), np.ones(3))
    node.input[0] = "real"
    nodes = [helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT), node]
    path = save(tmp_path / "bytes.onnx", nodes, constants, {"maps": [1, 17, 64, 48]}, kind=TensorProto.UINT8)
    with pytest.raises(ConfigError, match="on uint8"):
        PoseModel(path)
    path.with_suffix(".toml").write_text('mean = [0, 0, 0]\nstd = [1, 1, 1]\ncolour = "rgb"')
    assert_dots(PoseModel(path))


def test_the_window_is_the_padded_box_in_the_inputs_aspect() -> None:
    """Without UDP input pixel 0 and pixel `width` lie on its edges, with UDP pixel 0 and pixel `width` - 1."""
    for udp in (False, True):
        window = window_of(BOX, (WIDTH, HEIGHT), 1.25, udp)
        last = np.array([WIDTH - udp, HEIGHT - udp])
        corners = window[:, 2], window[:, :2] @ last + window[:, 2]
        np.testing.assert_allclose(corners, [(160 - 112.5, 170 - 150), (160 + 112.5, 170 + 150)])
    wide = window_of(np.asarray([0, 0, 300, 10], np.float32), (WIDTH, HEIGHT), 1.0, False)
    np.testing.assert_allclose(wide[:, :2] @ [WIDTH, HEIGHT], [300, 400])
    for box in ([10, 10, 10, 30], [0, 0, np.nan, 5]):
        with pytest.raises(InputError, match="x1 < x2"):
            window_of(np.asarray(box, np.float32), (WIDTH, HEIGHT), 1.25, False)


def test_heatmaps_are_decoded_to_a_quarter_of_a_cell() -> None:
    maps = np.zeros((3, 64, 48), np.float32)
    maps[0, 10, 20], maps[0, 10, 21], maps[0, 9, 20] = 0.9, 0.5, 0.4
    maps[1, 63, 47] = 0.8  # in the corner: not moved
    maps[2, 5, 0], maps[2, 5, 1] = 0.7, 0.6
    np.testing.assert_allclose(
        decode_heatmaps(maps, (WIDTH, HEIGHT)), [(81, 39, 0.9), (188, 252, 0.8), (0, 20, 0.7)], rtol=1e-6
    )
    udp = decode_heatmaps(maps, (WIDTH, HEIGHT), udp=True)
    np.testing.assert_allclose(udp[1, :2], [191, 255])
    np.testing.assert_allclose(udp[0, :2], [20.25 * 191 / 47, 9.75 * 255 / 63], rtol=1e-6)


@pytest.mark.parametrize("yolox", [False, True])
def test_boxes_of_a_person_model(yolox: bool, tmp_path: Path) -> None:
    """Wide blue image: half of the input is blue, half grey; one more person with a lower threshold."""
    path = person_model(tmp_path / "person.onnx", yolox)
    image = np.zeros((320, 640, 3), np.uint8)
    image[..., 2] = 255
    boxes, scores = PersonModel(path).boxes(image)
    blue = (255 + 114) / 2 / 255
    np.testing.assert_allclose(boxes, [(20, 40, 120, 200), (60, 120, 160, 300)], rtol=1e-5)
    np.testing.assert_allclose(scores, [0.9 * blue, 0.5 * blue], rtol=1e-3)
    path.with_suffix(".toml").write_text("min_score = 0.1")
    assert len(PersonModel(path).boxes(image)[0]) == 3
    path.with_suffix(".toml").write_text("person_class = 1")
    assert len(PersonModel(path).boxes(image)[0]) == 1
    path.with_suffix(".toml").write_text('colour = "rgb"')
    assert len(PersonModel(path).boxes(image)[0]) == 0  # the first channel is red, and black
    assert PersonModel(path).boxes(np.zeros((1, 1, 3), np.uint8))[0].shape == (0, 4)


def test_a_person_model_of_any_size_needs_the_size(tmp_path: Path) -> None:
    path = person_model(tmp_path / "any.onnx", size=("height", "width"))
    with pytest.raises(ConfigError, match=r"any\.toml.*input_size"):
        PersonModel(path)
    path.with_suffix(".toml").write_text("input_size = [320, 320]")
    assert PersonModel(path).size == (320, 320)


def test_both_models_in_the_detector(tmp_path: Path) -> None:
    person = PersonModel(person_model(tmp_path / "person.onnx", True))
    detector = Detector(person_model=person, pose_model=PoseModel(heatmap_model(tmp_path / "pose.onnx")))
    image = np.full((320, 320, 3), 255, np.uint8)
    result = detector(image)
    assert [round(p.score, 2) for p in result.people] == [0.9, 0.5] and isinstance(detector, PersonDetector)
    assert (result.people[0].keypoints[:3, 2] > 0.85).all()
    supplied = detector.keypoints_in_boxes(dots(), BOX[None])
    np.testing.assert_allclose(supplied[0].keypoints[0, :2], DOTS[0], atol=1.5)


SETTINGS = {
    "collour = 'rgb'": "unknown key 'collour'. Known: input_size",
    "mean = [1, 2]": "mean must be three numbers",
    "std = [1, 0, 1]": "std must be three positive",
    "colour = 'red'": "colour must be",
    "input_size = [256, 192]": "the model's input is 192 wide and 256 high",
    "input_size = 3": "input_size must be",
    "padding = nan": "padding must be",
    "udp = 1": "udp must be",
    "joints = 3": "joints must be",
    "joints = 'dog'": "unknown joint order 'dog'",
    "joints = ['tail', 'paw']": "an animal's",
    "decode = 'simcc'": "neither heatmaps",
    "score_max = 0": "score_max must be",
    "= 3": "is not TOML",
}


@pytest.mark.parametrize("text", SETTINGS)
def test_settings_that_cannot_be_used(text: str, tmp_path: Path) -> None:
    path = heatmap_model(tmp_path / "pose.onnx")
    path.with_suffix(".toml").write_text(text)
    with pytest.raises(DPMeshError, match=SETTINGS[text].replace("[", r"\[")) as refusal:
        PoseModel(path)
    assert "\n" not in str(refusal.value) and isinstance(refusal.value, ConfigError | InputError)


def external(path: Path, inside: bool) -> Path:
    """Weights that are to be read from /etc/passwd, in the graph or in an attribute of a node."""
    node, constants = pixel_values(17, 4)
    tensor = constants[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"
    nodes = [node]
    if inside:
        nodes = [helper.make_node("Constant", [], ["w"], value=tensor), node]
        constants = constants[1:]
    return save(path, nodes, constants, {"maps": [1, 17, 64, 48]})


def custom(path: Path, inside: bool) -> Path:
    """An operator of a foreign domain, in the graph or in a branch."""
    node = helper.make_node("Steal", ["image"], ["maps"], domain="evil")
    nodes = [node]
    if inside:
        value = helper.make_tensor_value_info("maps", TensorProto.FLOAT, None)
        branch = helper.make_graph([node], "branch", [], [value])
        nodes = [helper.make_node("If", ["yes"], ["maps"], then_branch=branch, else_branch=branch)]
    return save(path, nodes, [constant("yes", True, bool)], {"maps": [1, 17, 64, 48]})


@pytest.mark.parametrize("inside", [False, True])
def test_files_outside_and_foreign_operators_are_refused(inside: bool, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keeps weights in other files"):
        PoseModel(external(tmp_path / "a.onnx", inside))
    with pytest.raises(InputError, match=r"custom operators \(evil\)"):
        PoseModel(custom(tmp_path / "b.onnx", inside))


def test_files_that_are_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = heatmap_model(tmp_path / "pose.onnx")
    whole = path.read_bytes()
    for content, message in {
        b"": "no graph", b"\x00" * 50: "not a readable ONNX", b"hello, world": "not a readable ONNX",
        whole[: len(whole) // 2]: "not a readable ONNX", b"\x3a" + b"\xff" * 9 + b"\x01": "not a readable ONNX",
        b"version https://git-lfs.github.com/spec/v1\n": "Git LFS", whole[:8] + b"ORTM" + whole: "not a readable",
    }.items():  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(InputError, match=message) as refusal:
            PoseModel(path)
        assert "\n" not in str(refusal.value)
    path.write_bytes(whole)
    monkeypatch.setattr(onnx_file, "LARGEST_MODEL", 1000)
    with pytest.raises(InputError, match="larger than 1,000 bytes"):
        PoseModel(path)
    with pytest.raises(InputError, match="no such file"):
        PoseModel(tmp_path / "none.onnx")


def test_models_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(InputError, match=r"dets 1×4×5.*neither heatmaps 1×J×h×w nor SimCC"):
        PoseModel(person_model(path))
    with pytest.raises(InputError, match="non-maximum suppression inside"):
        PersonModel(heatmap_model(path))
    node = helper.make_node("Identity", ["image"], ["maps"])
    with pytest.raises(InputError, match=r"not one image as input.*image 1×9"):
        PoseModel(save(path, [node], [], {"maps": [1, 9]}, (1, 9)))
    with pytest.raises(InputError, match="onnxruntime cannot open it") as refusal:
        PoseModel(
            save(path, [helper.make_node("Nonsense", ["image"], ["maps"])], [], {"maps": [1, 3, 64, 48]})
        )
    assert "\n" not in str(refusal.value)
    endless = helper.make_node("Div", ["maps0", "zero"], ["maps"])
    node, constants = pixel_values(17, 4)
    node.output[0] = "maps0"
    path = save(path, [node, endless], [*constants, constant("zero", 0.0)], {"maps": [1, 17, 64, 48]})
    with pytest.raises(InputError, match="not finite"):
        PoseModel(path)


def test_options_know_the_models_by_content(tmp_path: Path) -> None:
    path = heatmap_model(tmp_path / "pose.onnx")
    plain, chosen = ModelOptions().record(), ModelOptions(pose_model=path).record()
    assert plain["pose_model"] is None and plain["person_model"] is None
    assert differences(plain, chosen) == ["--pose-model was not set, is pose.onnx"]
    path.with_suffix(".toml").write_text("padding = 1.3")
    assert differences(chosen, ModelOptions(pose_model=path).record())
    for name in ("pose_model", "person_model"):
        with pytest.raises(ConfigError, match=f"fast and {name}"):
            ModelOptions(fast=True, **{name: path})
    with pytest.raises(InputError, match="no such file"):
        ModelOptions(person_model=tmp_path / "none.onnx").record()


def test_models_reach_the_detector_and_the_scene(tmp_path: Path) -> None:
    pose, person = heatmap_model(tmp_path / "pose.onnx"), person_model(tmp_path / "person.onnx")
    predictor = Predictor.from_pretrained(pose_model=pose, person_model=str(person))
    assert isinstance(predictor.detector, Detector)
    assert predictor.detector.pose_model is not None and predictor.detector.person_model is not None
    # The models' keypoints lie in a corner of their crops, outside the network's.
    scene = predictor(np.full((320, 320, 3), 255, np.uint8), keep_unposed=True)
    assert len(scene.people) == 2 and (scene.people[0].keypoints2d[:3, 2] > 0.85).all()
    for name, path in (("pose_model", pose), ("person_model", person)):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert scene.options[name] == {"file": path.name, "sha256": digest}


@pytest.mark.parametrize("path", ["", ".", "x" * 300, "a\0b"])
def test_names_that_no_file_has(path: str) -> None:
    with pytest.raises(InputError):
        ModelOptions(pose_model=path).record()
    with pytest.raises(InputError):
        PoseModel(Path(path))


def test_the_command_refuses_a_bad_model_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = Path(__file__).parents[2] / "examples/park.jpg"
    path = tmp_path / "m.onnx"
    path.write_bytes(b"nothing")
    assert main(["predict", str(photo), "--out", str(tmp_path / "o"), "--pose-model", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "m.onnx: is not a readable ONNX file" in error


def test_rtmlib_solutions() -> None:
    """A stand-in with rtmlib's interface: BGR images, boxes as a list, no scores of boxes."""
    calls: list[np.ndarray] = []

    def pose_model(image: np.ndarray, bboxes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        calls.append(image)
        rows = np.stack([np.linspace(box[:2], box[2:], 26) for box in bboxes])
        return rows, np.full(rows.shape[:2], 1.2)

    def det_model(image: np.ndarray) -> np.ndarray:
        return np.array([[10, 10, 60, 90], [-5, 3, 2000, 300], [7, 7, 7, 7]]) if image.any() else np.array([])

    detector = RTMLibDetector(SimpleNamespace(det_model=det_model, pose_model=pose_model))
    assert isinstance(detector, PersonDetector) and detector.name == "rtmlib"
    image = dots()
    result = detector(image)
    assert sorted(tuple(p.box) for p in result.people) == [(0, 3, 400, 300), (10, 10, 60, 90)]
    assert np.array_equal(calls[0], image[..., ::-1]) and result.people[0].score == 1
    assert result.people[0].keypoints30[JOINTS30.index("Head_top"), 2] == 1  # HALPE-26 has it
    assert detector(np.zeros_like(image)).people == ()
    with pytest.raises(ConfigError, match="no models of persons and poses"):
        RTMLibDetector(SimpleNamespace(pose_model=pose_model))
    multiclass = SimpleNamespace(det_mode="multiclass")
    with pytest.raises(ConfigError, match='det_mode="human"'):
        RTMLibDetector(SimpleNamespace(det_model=multiclass, pose_model=pose_model))
    with pytest.raises(ConfigError, match="to_openpose=False"):
        RTMLibDetector(SimpleNamespace(det_model=det_model, pose_model=SimpleNamespace(to_openpose=True)))
