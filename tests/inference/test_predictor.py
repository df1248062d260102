"""Images to scenes: batching changes nothing, the camera's source is recorded, bad input raises its own error."""

import hashlib
import io
import json
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from keypoint_people import openpose, points18
from PIL import Image

from dpmesh.device import pick_device
from dpmesh.errors import ConfigError, DPMeshError, InputError, WeightsError
from dpmesh.geometry.camera import crop_focal
from dpmesh.geometry.crop import Crop
from dpmesh.inference import preprocess
from dpmesh.inference.batches import refuse_single_image
from dpmesh.inference.detector import Detector
from dpmesh.inference.images import DecodedImage, read_image
from dpmesh.inference.options import PredictOptions
from dpmesh.inference.predictor import Predictor, predict_stream
from dpmesh.inference.preprocess import EXPAND, NARROWEST, WIDEST, choose_focal, model_inputs, prepare_image
from dpmesh.inference.scene import Scene
from dpmesh.model import DPMesh
from dpmesh.skeletons import JOINTS30
from dpmesh.types import Inputs, Prediction

Build = Callable[..., Predictor]
PHOTO = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)


def same(a: Scene, b: Scene) -> None:
    assert len(a.people) == len(b.people)
    for name in ("vertices", "joints3d", "joints2d", "transl", "box"):
        np.testing.assert_allclose(a.stacked(name), b.stacked(name), atol=1e-5)


def test_many_equals_one_by_one_and_batches_cross_images(predictor: Build, tmp_path: Path) -> None:
    paths = []
    for i in range(5):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(PHOTO[: 40 + 10 * i]).save(paths[-1])
    many = predictor(batch=4)
    results = list(many.predict_many(paths))
    assert [path for path, _ in results] == paths
    assert many.model.calls == [4, 4, 2]  # pyright: ignore[reportAttributeAccessIssue]
    for path, scene in results:
        assert isinstance(scene, Scene)
        same(scene, predictor(batch=1)(path))
        assert scene.source == str(path)


def test_a_bad_file_yields_its_error_and_the_rest_goes_on(predictor: Build, tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        Image.fromarray(PHOTO).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"no picture")
    results = dict(predictor().predict_many(tmp_path / n for n in ("a.png", "b.png", "c.png")))
    kinds = [isinstance(r, DPMeshError) for r in results.values()]
    assert kinds == [False, True, False]


def test_a_list_gives_a_list(predictor: Build, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PHOTO).save(path)
    chw = torch.from_numpy(PHOTO).permute(2, 0, 1)
    sources = [path, str(path), PHOTO, Image.fromarray(PHOTO), path.read_bytes(), chw, chw / 255]
    made = predictor(batch=3)
    for images in (sources, tuple(sources)):
        scenes = made(images)
        assert isinstance(scenes, list) and len(scenes) == len(sources)
        for scene in scenes:
            same(scene, predictor()(path))
    assert made([]) == [] and len(made(sources[:1])) == 1
    with path.open("rb") as file:
        assert made(file).source == str(path)


def test_an_error_of_a_list_names_the_image(predictor: Build, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images\[1\], .*none.png: .*no such file"):
        predictor()([PHOTO, tmp_path / "none.png", PHOTO])
    with pytest.raises(InputError, match=r"images\[0\]: max_people must|images\[0\], max_people: "):
        predictor()([PHOTO], max_people=0)


def test_people_of_the_user_belong_to_one_image(predictor: Build, tmp_path: Path) -> None:
    """An entry of a keypoint file, text boxes and an array of boxes serve no two images of a list or a stream."""
    paths = [tmp_path / folder / "x.png" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        Image.fromarray(PHOTO).save(path)
    keypoints = tmp_path / "keypoints.json"
    row = {"image_id": "x.png", "keypoints": [40.0, 40.0, 1.0] * 17}
    keypoints.write_text(json.dumps([row]))
    made = predictor()
    for path in paths:
        assert len(made(path, keypoints=keypoints)) == 1
    for images in (paths, iter(paths)):
        *_, (_, last) = made.predict_many(images, keypoints=keypoints)
        assert isinstance(last, InputError) and "equally well" in str(last)
    ((_, scene),) = predict_stream(made, paths[:1], PredictOptions(keypoints=keypoints), [str(paths[1])])
    assert isinstance(scene, InputError), "the other one has its result already"
    with pytest.raises(InputError, match="text boxes belong to one image"):
        made(paths, boxes="10,10,90,80")
    with pytest.raises(InputError, match="an array is of one image"):
        made(paths, boxes=np.array([[10, 10, 90, 80]]))


def test_many_streams_anything_iterable(predictor: Build) -> None:
    """Images are taken from an endless iterator as they are needed."""
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield PHOTO

    stream = predictor(batch=4).predict_many(endless())
    for _ in range(5):
        image, scene = next(stream)
        assert image is PHOTO and isinstance(scene, Scene)
    assert taken <= 6
    assert [len(scene) for _, scene in predictor().predict_many(np.stack([PHOTO] * 3))] == [2] * 3  # pyright: ignore[reportArgumentType]
    assert list(predictor().predict_many([])) == []


@pytest.mark.parametrize(
    "image", ["a.jpg", Path("a.jpg"), b"\xff\xd8", PHOTO, torch.zeros(3, 4, 4), io.BytesIO()]
)
def test_one_image_is_not_taken_for_many(image: object) -> None:
    """Its letters, bytes or rows are no images."""
    with pytest.raises(InputError, match="is not a list or another iterable of images"):
        refuse_single_image(image)


def test_the_letters_of_a_path_are_not_predicted(predictor: Build) -> None:
    with pytest.raises(InputError, match="For one image call the predictor itself"):
        predictor().predict_many("a.jpg")


def test_an_array_of_keypoints_belongs_to_one_image(predictor: Build) -> None:
    points = np.random.default_rng(3).uniform(20, 80, (17, 3))
    points[:, 2] = 0.8
    for keypoints in (points, points.tolist(), torch.from_numpy(points), points[None], points[:, :2]):
        assert len(predictor([])([PHOTO], keypoints=keypoints)[0]) == 1
    for images in ([PHOTO, PHOTO], iter([PHOTO, PHOTO])):
        with pytest.raises(InputError, match="keypoints: an array is of one image"):
            list(predictor([]).predict_many(images, keypoints=points))
    with pytest.raises(InputError, match="keypoints: list is not read"):
        predictor([])(PHOTO, keypoints=[[1.0, 2.0], [3.0]])


def test_the_repr_names_weights_device_and_methods(predictor: Build) -> None:
    assert repr(predictor()) == "Predictor(fake, cpu)"


def test_waiting_images_are_bounded_by_their_bytes(
    predictor: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no people, so that no batch ever fills; what has been yielded is not kept."""
    paths = [tmp_path / f"{i}.png" for i in range(9)]
    for path in paths:
        Image.fromarray(PHOTO).save(path)
    images: list[weakref.ref[DecodedImage]] = []
    most = 0

    def counted(*args: object) -> DecodedImage:
        nonlocal most
        source = read_image(*args)  # pyright: ignore[reportArgumentType]
        images.append(weakref.ref(source))
        most = max(most, sum(image() is not None for image in images))
        return source

    monkeypatch.setattr(preprocess, "read_image", counted)
    for limit, wanted in ((10**9, 9), (3 * PHOTO.nbytes, 4), (1, 2)):
        monkeypatch.setattr("dpmesh.inference.batches.MAX_WAITING_BYTES", limit)
        images.clear()
        most = 0
        assert [path for path, _ in predictor([]).predict_many(paths)] == paths
        assert most <= wanted and (limit < 10**9 or most == wanted)  # and one that is just being read


def test_the_checksum_is_of_the_bytes_that_were_decoded(
    predictor: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the file is replaced, or deleted, while it is being worked on."""
    path = tmp_path / "a.png"
    for change in (lambda: path.write_bytes(b"another"), path.unlink):
        Image.fromarray(PHOTO).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()

        def changed(*args: object, change: Callable[[], object] = change) -> DecodedImage:
            image = read_image(*args)  # pyright: ignore[reportArgumentType]
            change()
            return image

        monkeypatch.setattr(preprocess, "read_image", changed)
        scene = predictor()(path)
        assert scene.people and scene.source_sha256 == digest


def test_options_are_recorded(predictor: Build, tmp_path: Path) -> None:
    file = openpose(tmp_path, points18())
    scene = predictor()(PHOTO, keypoints=file, fov=50.0, max_people=3)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert scene.options == {
        "weights": {"file": "fake"}, "keypoints": {"file": "k.json", "sha256": digest},
        "keypoint_format": None, "boxes": None,
        "focal": None, "fov": 50.0, "roll": None, "max_people": 3, "keep_unposed": False, "hypotheses": 1,
    }  # fmt: skip
    arrays = [predictor()(PHOTO, boxes=np.array([[1.0, 2, 30, 40 + i]])).options["boxes"] for i in (0, 0, 1)]
    assert arrays[0] == arrays[1] != arrays[2]


def test_no_person_is_an_empty_scene(predictor: Build) -> None:
    tiny = predictor()(np.zeros((1, 1, 3), np.uint8))
    assert tiny.people == () and tiny.image_size == (1, 1)
    assert predictor([])(PHOTO).people == ()


def test_max_people_drops_and_counts(predictor: Build) -> None:
    scene = predictor()(PHOTO, max_people=1)
    assert len(scene.people) == 1 and scene.fallbacks["dropped"] == 1
    with pytest.raises(InputError):
        predictor()(PHOTO, max_people=0)


def test_focal_length_of_the_user_then_exif_then_diagonal() -> None:
    assert choose_focal(500.0, None, 300.0, (90, 160)) == (500, "given")
    assert choose_focal(None, 90.0, 300.0, (90, 160)) == (pytest.approx(80), "given")
    assert choose_focal(None, None, 300.0, (90, 160)) == (300, "exif")
    assert choose_focal(None, None, None, (30, 40)) == (50, "diagonal")


@pytest.mark.parametrize(
    "lens",
    [(0.0, None), (-1.0, None), (float("nan"), None), (None, 0.0), (None, 180.0), (9.0, 9.0), (1e-300, None),
     (1e300, None), (None, 1e-300), (None, 179.9999), (None, float("nan")), (float("inf"), None)],
)  # fmt: skip
def test_impossible_lenses_are_refused(lens: tuple[float | None, float | None]) -> None:
    with pytest.raises(InputError):
        choose_focal(*lens, None, (90, 160))


@pytest.mark.parametrize("exif", [0.0, 1e-300, 1e300, float("nan")])
def test_an_impossible_lens_in_exif_is_ignored(exif: float) -> None:
    assert choose_focal(None, None, exif, (30, 40)) == (50, "diagonal")


@pytest.mark.parametrize("diagonals", [WIDEST, NARROWEST])
def test_of_the_outermost_lenses_every_number_is_finite(predictor: Build, diagonals: float) -> None:
    scene = predictor()(PHOTO, focal=diagonals * float(np.hypot(*PHOTO.shape[:2])))
    for name in ("transl", "vertices", "joints3d", "joints2d", "global_orient"):
        assert np.isfinite(scene.stacked(name)).all(), name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_prediction_that_is_not_finite_is_one_line(predictor: Build, value: float) -> None:
    made = predictor()

    class Broken:
        body, provenance, camera = made.model.body, made.model.provenance, made.model.camera

        def __call__(self, inputs: Inputs, *, features: bool = False) -> Prediction:
            prediction = first(inputs)
            return replace(prediction, betas=torch.full_like(prediction.betas, value))

    first, made.model = made.model, Broken()
    with pytest.raises(WeightsError, match="the prediction"):
        made(PHOTO)


def test_focal_length_scales_the_distance(predictor: Build) -> None:
    near, far = predictor()(PHOTO, focal=200.0), predictor()(PHOTO, focal=800.0)
    assert (far.stacked("transl")[:, 2] > 3 * near.stacked("transl")[:, 2]).all()


def test_device() -> None:
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(ConfigError):
        pick_device("tpu")


def test_joints_outside_their_crop_are_not_visible_and_finite(predictor: Build) -> None:
    points = np.full((1, 17, 3), 40.0)
    points[0, :, 2] = 0.9
    points[0, 3:5, 0] = 150  # ears, far right of the box below
    one = predictor([])
    options = PredictOptions(keypoints=points, boxes=np.array([[20.0, 20, 60, 60]]))
    prepared = prepare_image(one.detector, PHOTO, options)
    inputs = model_inputs(prepared.persons, one.model.camera, one.device)
    ears = [28 - 1, 28]  # rows of L_Ear, R_Ear in JOINTS30
    assert (inputs.visible[0, ears] == 0).all() and inputs.visible[0].sum() > 10
    seen = inputs.visible[0] > 0
    assert ((inputs.joints[0, seen] >= 0) & (inputs.joints[0, seen] < Crop.SIZE)).all()
    assert inputs.focal[0].item() == pytest.approx(crop_focal(prepared.K, prepared.crops[0]))
    assert (
        inputs.crop.min() >= 0
        and inputs.crop.max() <= 1
        and prepared.crops[0].side == pytest.approx(40 * EXPAND)
    )


def test_a_model_of_the_full_images_camera_has_its_diagonal_as_focal_length(predictor: Build) -> None:
    """Joints that are not visible keep their coordinates; those that no detector provides have the image's origin."""
    points = np.full((1, 17, 3), 40.0)
    points[0, :, 2] = 0.9
    points[0, 3, :] = [45.0, 33.0, 0.01]  # L_Ear, below what counts as visible
    one = predictor([])
    one.model.camera = "image"
    options = PredictOptions(keypoints=points, boxes=np.array([[20.0, 20, 60, 60]]), focal=300.0)
    prepared = prepare_image(one.detector, PHOTO, options)
    crop = prepared.crops[0]
    inputs = model_inputs(prepared.persons, one.model.camera, one.device)
    assert inputs.focal[0].item() == pytest.approx(np.hypot(*PHOTO.shape[:2]))
    rows = JOINTS30.index("L_Ear"), JOINTS30.index("Chest")
    assert inputs.visible[0, list(rows)].tolist() == [0, 0]
    places = crop.to_crop(np.array([[45.0, 33.0], [0.0, 0.0]]))
    np.testing.assert_allclose(inputs.joints[0, list(rows)].numpy(), places, atol=1e-3)
    assert one(PHOTO, keypoints=points).people


def test_a_person_without_keypoints_is_counted(predictor: Build) -> None:
    points = np.zeros((1, 17, 3))
    points[0, 0] = [20.0, 40, 0.04]  # one joint, not confident enough to be used
    scene = predictor([])(PHOTO, keypoints=points, boxes=np.array([[5.0, 5, 40, 80]]))
    assert scene.fallbacks["no_keypoints"] == 1


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def real() -> Predictor:
    """The real classes, untrained: their body stands upright somewhere, and everything else holds already."""
    return Predictor(DPMesh.from_config("embedded").eval(), Detector(), "random")


def test_real_model_and_detector_keep_the_contract(real: Predictor, tmp_path: Path) -> None:
    scene = real(EXAMPLES / "two_people.jpg")
    assert len(scene.people) == 2
    for person in scene.people:
        assert person.vertices.shape == (real.model.body.vertex_count, 3)
        vectors = np.concatenate([person.global_orient, person.body_pose]).reshape(1, 24, 3)
        rotations = roma.rotvec_to_rotmat(torch.from_numpy(vectors))
        again = real.model.body(
            torch.from_numpy(person.betas[None]), rotations, torch.from_numpy(person.transl[None])
        )
        np.testing.assert_allclose(again.vertices[0].numpy(), person.vertices, atol=1e-5)
    folder = scene.save(tmp_path)
    assert (folder / "person_01.obj").exists()


def test_real_batch_equals_singles(real: Predictor) -> None:
    paths = [EXAMPLES / "two_people.jpg", EXAMPLES / "astronaut.jpg"]
    for path, scene in real.predict_many(paths):
        assert isinstance(scene, Scene)
        alone = real(path)
        assert len(scene.people) == len(alone.people) > 0
        np.testing.assert_allclose(scene.stacked("vertices"), alone.stacked("vertices"), atol=1e-4)
