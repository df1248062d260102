"""People in a looks file: labels stay right, the file is checked, and without one nothing changes."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest

from dpmesh.body.files import population_body
from dpmesh.data.poses import PoseBank
from dpmesh.data.sample import Sample
from dpmesh.data.synthetic import SyntheticPeople
from dpmesh.data.synthetic.body import FastBody, matrices
from dpmesh.data.synthetic.clothes import Wardrobe
from dpmesh.data.synthetic.looks import Look, Looks
from dpmesh.data.synthetic.looks_file import load_looks
from dpmesh.errors import ConfigError, InputError
from dpmesh.train.config import Data, TrainingSource

BODY = population_body()
RED, GREEN = (200, 30, 30), (30, 180, 30)


def flat(colour: tuple[int, int, int]) -> np.ndarray:
    image = np.full((64, 64, 3), colour[::-1], np.uint8)
    return cv2.imencode(".jpg", image)[1].ravel()


def arrays() -> dict[str, np.ndarray]:
    """A red skin, and trunks that are the body's own faces about the hips, 2 cm out: green clothes, shoes and hair."""
    fast = FastBody(BODY)
    near = np.abs(fast.template[:, 1]) < 0.15
    hidden = near[BODY.faces].all(1) & (np.abs(fast.template[BODY.faces, 0]) < 0.3).all(1)
    used, faces = np.unique(BODY.faces[hidden], return_inverse=True)
    bones = np.argsort(-BODY.weights[used], 1)[:, :4]
    out = np.array([1.15, 1.0, 1.15], np.float32)
    piece = {
        "template": fast.template[used] * out,
        "shapedirs": BODY.shapedirs[used].transpose(2, 0, 1).astype(np.float16),
        "faces": faces.reshape(-1, 3).astype(np.uint16),
        "uv": np.zeros((len(faces.reshape(-1, 3)), 6), np.uint16),
        "bones": bones.astype(np.uint8),
        "weights": np.take_along_axis(BODY.weights[used], bones, 1).astype(np.float16),
        "nearest": used.astype(np.uint16),
        "hides": np.packbits(hidden),
        "texture": flat(GREEN),
    }
    made: dict[str, np.ndarray] = {
        "body_faces": BODY.faces.astype(np.uint16),
        "uv": np.zeros((len(BODY.faces), 6), np.uint16),
    }
    for kind in ("clothes", "shoes", "hair"):
        made[kind] = np.array([f"{kind}1", f"female_{kind}", f"bob_{kind}"])
        made |= {f"{name}.{key}": value for name in made[kind] for key, value in piece.items()}
    made["skins"] = np.array(["male_1", "female_1"])
    made |= {f"{name}.texture": flat(RED) for name in ("male_1", "female_1")}
    return made


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("looks") / "looks.npz"
    np.savez(path, **arrays())
    return path


@pytest.fixture(scope="module")
def bank() -> PoseBank:
    return PoseBank.load("train")


def test_clothes_follow_the_body_and_replace_what_they_hide(file: Path):
    fast, rng = FastBody(BODY), np.random.default_rng(0)
    looks, outfit = Looks(file, fast), Wardrobe(fast).dress(rng)
    betas = rng.standard_normal(10).astype(np.float32)
    rotations = matrices(rng.normal(0, 0.3, (24, 3)))
    moves, transl = fast.transforms(betas[None], rotations[None])[0], np.float32([0, 0, 3])
    chosen = looks.choose(rng, outfit, woman=True)
    piece = load_looks(file).clothes[0]
    look = Look(chosen.skin, ((piece, chosen.skin),), None, clothed=True)
    dressed = looks.wear(look, outfit, fast.shaped(betas), betas, rotations, moves, transl)
    body = fast.posed(betas, rotations) + transl
    count = len(BODY.faces) - int(piece.hides.sum())
    assert len(dressed.mesh.faces) == count + len(piece.faces) == len(dressed.part)
    worn = dressed.mesh.vertices[len(body) :]
    apart = np.linalg.norm(worn - body[piece.nearest], axis=1)
    assert apart.max() < 0.08 and np.allclose(dressed.mesh.vertices[: len(body)], body, atol=1e-6)
    assert set(dressed.part[count:]) <= set(fast.part[piece.nearest])


def test_a_person_in_the_looks_is_labelled_as_one(file: Path, bank: PoseBank):
    plain = SyntheticPeople(7, bank, BODY)
    people = SyntheticPeople(7, bank, BODY, file, share=1.0)
    red = 0
    for index in range(6):
        a, b = plain.sample(index), people.sample(index)
        assert np.array_equal(a.joints3d, b.joints3d) and np.array_equal(a.betas, b.betas)
        assert b.parts.max() <= 24
        red += int(((b.crop[..., 0] > 90) & (b.crop[..., 1] < 60)).sum())
        both = (a.parts > 0) & (b.parts > 0)
        assert both.sum() > 0.8 * (a.parts > 0).sum()
        assert np.abs(a.surface - b.surface)[both].mean() < 0.05
    assert red > 500  # of the skin's texture


def test_an_index_is_a_sample(file: Path, bank: PoseBank):
    again = [SyntheticPeople(7, bank, BODY, file, share=1.0).sample(2) for _ in range(2)]
    for field in fields(Sample):
        assert np.array_equal(getattr(again[0], field.name), getattr(again[1], field.name))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("uv", lambda a: a[:5]),
        ("clothes1.faces", lambda a: a + 9000),
        ("clothes1.bones", lambda a: a + 30),
        ("clothes1.nearest", lambda a: a + 9000),
        ("clothes1.weights", lambda a: a[:2]),
        ("male_1.texture", lambda a: a[:9]),
        ("hair", lambda a: a[:0]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_file_is_named(
    name: str, damage: Callable[[np.ndarray], np.ndarray], tmp_path: Path, bank: PoseBank
):
    path, made = tmp_path / "looks.npz", arrays()
    np.savez(path, **{**made, name: damage(made[name])})
    with pytest.raises(InputError, match=r"looks\.npz"):
        SyntheticPeople(7, bank, BODY, path)


def test_a_file_of_another_body_is_refused(file: Path, tmp_path: Path):
    made = arrays()
    faces = np.concatenate([made["body_faces"], made["body_faces"][:1]])
    path = tmp_path / "looks.npz"
    hides = {name: np.packbits(np.zeros(len(faces), bool)) for name in made if name.endswith(".hides")}
    np.savez(path, **{**made, **hides, "body_faces": faces, "uv": np.zeros((len(faces), 6), np.uint16)})
    with pytest.raises(InputError, match="another body"):
        Looks(path, FastBody(BODY))


def test_photographs_behind(tmp_path: Path, bank: PoseBank):
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((300, 400, 3), (250, 0, 250), np.uint8))
    people = SyntheticPeople(7, bank, BODY, backgrounds=tmp_path)
    crops = np.stack([people.sample(index).crop for index in range(8)]).astype(int)
    magenta = (np.abs(crops[..., 0] - crops[..., 2]) < 60) & (crops[..., 0] > 2 * crops[..., 1] + 30)
    assert magenta.mean(axis=(1, 2)).mean() > 0.1
    (tmp_path / "wall.png").unlink()
    with pytest.raises(InputError, match=r"no \.jpg or \.png"):
        SyntheticPeople(7, bank, BODY, backgrounds=tmp_path)


def test_settings_that_would_have_no_effect_are_refused():
    with pytest.raises(ConfigError, match="looks_share"):
        Data(looks_share=1.5)
    with pytest.raises(ConfigError, match="synthetic people"):
        Data(looks="looks.npz", group2d=(TrainingSource(dataset="coco", root="data"),))
