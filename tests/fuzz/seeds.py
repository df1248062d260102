"""Small valid files of every kind. mutate.py parses them by their suffix."""

import functools
import io
import json
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, features
from safetensors.torch import save

from dpmesh.assets import SHIPPED
from dpmesh.body.files import BodyArrays, save_body
from dpmesh.data.annotation import Annotation
from dpmesh.data.pack import PackConfig, pack
from dpmesh.evaluate.protocol import Measure
from dpmesh.evaluate.registry import entry
from dpmesh.evaluate.report import figures
from dpmesh.evaluate.results import Rows
from dpmesh.evaluate.results import save as save_rows
from dpmesh.inference.record import installed
from dpmesh.skeletons import SMPL24, SMPL_PARENTS

ROOT = Path(__file__).parents[2]
EMBEDDED = SHIPPED / "embedded"
KEYPOINTS = ROOT / "tests" / "inference" / "keypoints"
WHOLE = "whole"
"""Name of a file that marks the config of the shipped weights; kinds.py links the weights into the folder."""
Files = dict[str, bytes]


def images() -> list[Files]:
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0xA405] = 28
    out: list[Files] = []

    def add(name: str, image: Image.Image, **options: Any) -> None:
        file = io.BytesIO()
        image.save(file, **options)
        out.append({name: file.getvalue()})

    add("a.jpg", rgb, format="JPEG", exif=exif)
    add("a.jpg", rgb.convert("CMYK"), format="JPEG", progressive=True)
    add("a.png", rgb.convert("RGBA"), format="PNG")
    add("a.png", rgb.convert("P"), format="PNG", transparency=3)
    add("a.png", Image.fromarray(rng.integers(0, 65536, (48, 64), np.uint16)), format="PNG")
    add("a.gif", rgb.convert("P"), format="GIF", save_all=True, append_images=[rgb.convert("P").rotate(90)])
    add("a.bmp", rgb, format="BMP")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate"):
        add("a.tif", rgb, format="TIFF", compression=compression, exif=exif)
    add("a.tif", Image.fromarray(rng.random((48, 64), np.float32)), format="TIFF")
    add("a.webp", rgb.convert("RGBA"), format="WEBP")
    add("a.ppm", rgb, format="PPM")
    add("a.jp2", rgb, format="JPEG2000")
    if features.check("avif"):
        add("a.avif", rgb, format="AVIF")
    return out


def keypoints() -> list[Files]:
    """A file of every format that has keypoints for park.jpg (tests/inference/test_keypoint_formats.py)."""
    cases = json.loads((KEYPOINTS / "truth.json").read_text())["cases"]
    alone = [
        KEYPOINTS / case["file"]
        for case in cases
        if case["expect"] == "people" and any(image["name"] == "park.jpg" for image in case["pictures"])
    ]
    files = [path for path in dict.fromkeys(alone) if path.is_file()]
    return [{f"k{path.suffix}": path.read_bytes()} for path in files]


def boxes() -> list[Files]:
    both = [[5, 6, 70, 80], [20.5, 10, 150, 119]]
    return [
        {"b.json": json.dumps(both).encode()},
        {"b.json": json.dumps({"a.jpg": both, "b.jpg": []}).encode()},
        {"b.txt": b"5,6,70,80;20.5,10,150,119"},
    ]


def settings() -> list[Files]:
    return [{"s.toml": path.read_bytes()} for path in sorted((ROOT / "configs").glob("*.toml"))]


def weights() -> list[Files]:
    state = {
        "one.weight": torch.ones(2, 3), "one.bias": torch.zeros(2), "two.weight": torch.eye(2),
        "two.bias": torch.zeros(2), "count": torch.tensor([3, 4]),
    }  # fmt: skip
    config = json.dumps({"config": {"name": "x"}, "provenance": {"data": "none", "licence": "CC0"}}).encode()
    small = {"config.json": config, "model.safetensors": save(state)}
    return [small] * 7 + [{"config.json": (EMBEDDED / "config.json").read_bytes(), WHOLE: b""}]


def tensors() -> list[Files]:
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(4, dtype=torch.int64)}
    out: list[Files] = [{"t.safetensors": save(state)}]
    for content, new in ((state, True), (state, False), ({"state_dict": state, "epoch": 3}, True)):
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=new)
        out.append({"t.pt" if new else "t.pkl": file.getvalue()})
    return out


def _small_body() -> BodyArrays:
    """SMPL's tree with three vertices a joint."""
    rng = np.random.default_rng(0)
    vertices = rng.normal(0, 0.5, (72, 3)).astype(np.float32)
    own = np.kron(np.eye(24), np.full((1, 3), 1 / 3)).astype(np.float32)
    return BodyArrays(
        v_template=vertices, shapedirs=rng.normal(0, 0.01, (72, 3, 10)).astype(np.float32),
        posedirs=np.zeros((72, 3, 207), np.float32), J_regressor=own,
        weights=np.kron(np.eye(24), np.ones((3, 1))).astype(np.float32), parents=SMPL_PARENTS,
        faces=np.arange(72, dtype=np.int64).reshape(24, 3),
        regressors={"joints30": np.concatenate([own, own[[SMPL24.index("Head")] * 6]])},
    )  # fmt: skip


def bodies() -> list[Files]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "b.npz"
        save_body(path, _small_body())
        return [{"b.npz": path.read_bytes()}]


def pickles() -> list[Files]:
    body = _small_body()
    fields: dict[str, Any] = {
        "v_template": body.v_template.astype(np.float64), "shapedirs": body.shapedirs, "posedirs": body.posedirs,
        "J_regressor": body.J_regressor, "weights": body.weights, "f": body.faces.astype(np.uint32),
        "kintree_table": np.array([[2**32 - 1, *body.parents[1:]], range(24)], np.uint32),
        "bs_type": "lrotmin", "J": np.zeros((24, 3)),
    }  # fmt: skip
    import scipy.sparse

    sparse = fields | {"J_regressor": scipy.sparse.csc_matrix(body.J_regressor)}
    return [
        {"b.pkl": pickle.dumps(content, protocol)} for content in (fields, sparse) for protocol in (0, 2, 4)
    ]


def checkpoints() -> list[Files]:
    state = {
        "step": 7, "stage": 0, "model": {"w": torch.ones(3, 2), "b": torch.zeros(3)},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3, 2)}}, "param_groups": [{"lr": 1e-3}]},
        "rng": torch.get_rng_state()[:64].clone(), "log": [{"step": 1, "loss": 0.5}],
    }  # fmt: skip
    file = io.BytesIO()
    torch.save(state, file)
    return [{"last.ckpt": file.getvalue(), "before.ckpt": file.getvalue()}, {"last.ckpt": file.getvalue()}]


def shards() -> list[Files]:
    rng = np.random.default_rng(0)
    K = np.array([[110.0, 0, 40], [0, 110, 40], [0, 0, 1]])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        people: list[Annotation] = []
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (80, 80, 3), np.uint8)).save(folder / f"{i}.jpg")
            joints = (rng.normal(0, 0.4, (30, 3)) + np.array([0, 0, 3])).astype(np.float32)
            pixels = ((joints @ K.T)[:, :2] / joints[:, 2:]).astype(np.float32)
            ones = np.ones(30, np.float32)
            people.append(
                Annotation(
                    record_id=f"mine/walk/{i}",
                    image=folder / f"{i}.jpg",
                    size=(80, 80),
                    box=np.array([10.0, 10, 70, 70]),
                    K=K,
                    joints2d=pixels,
                    joints2d_valid=ones,
                    joints3d=joints,
                    joints3d_valid=ones,
                )
            )
        pack(people, folder / "out", "mine-train", PackConfig(per_shard=2, quality=80))
        return [_files(folder / "out")]


def results() -> list[Files]:
    scene = {"schema": "dpmesh.scene/1", "source": "a.jpg", "source_sha256": "0" * 64, "people": []}
    comparison = {
        "schema": "dpmesh.comparison/1", "source": "a.jpg", "source_sha256": "0" * 64, "files": ["sheet.png"],
        "people": [], "columns": [{"title": "a", "method": "network", "notes": []}], "asked": {"size": 600},
    }  # fmt: skip
    record = {
        "schema": "dpmesh.result/1", "verb": "predict", "image": "0" * 64, "options": {}, "formats": ["json"],
        "files": ["scene.json"], "pending": [], "colour": "", "source": "a.jpg", "version": installed(),
    }  # fmt: skip
    more = {
        ".dpmesh.json": json.dumps(record).encode(),
        "scene.json": json.dumps(scene).encode(),
        "comparison.json": json.dumps(comparison).encode(),
        "sheet.png": b"x",
    }
    return [{f"damaged/{name}": data for name, data in (_files(evaluation_result()) | more).items()}]


@functools.cache
def plain_image() -> Path:
    """a.jpg, 160×120: the image for boxes."""
    path = Path(tempfile.mkdtemp(prefix="image-")) / "a.jpg"
    Image.new("RGB", (160, 120), (128, 128, 128)).save(path)
    return path


@functools.cache
def park() -> Path:
    """park.jpg, 1024×576: the image for keypoint files."""
    path = Path(tempfile.mkdtemp(prefix="image-")) / "park.jpg"
    Image.new("RGB", (1024, 576), (128, 128, 128)).save(path)
    return path


@functools.cache
def evaluation_result() -> Path:
    """The folder of an evaluation; do not change it."""
    rng, measure = np.random.default_rng(0), Measure()
    n, j = 6, len(measure.joint_names)
    rows = Rows(
        index=np.arange(n), ids=np.array([f"s{i % 2}/{i}" for i in range(n)]),
        sequences=np.array([f"s{i % 2}" for i in range(n)]),
        mpjpe=rng.uniform(50, 90, n), pa_mpjpe=rng.uniform(30, 60, n),
        mpve=rng.uniform(60, 99, n), joint=rng.uniform(20, 99, (n, j)), joint_pa=rng.uniform(20, 99, (n, j)),
        joint_visible=np.ones((n, j)), failed=np.zeros(n, bool),
    )  # fmt: skip
    stated = entry("3dpw").protocol
    protocol = {
        "name": stated.full_name, "title": stated.title, "hash": stated.hash, "definition": stated.definition(),
        "notes": list(stated.notes),
    }  # fmt: skip
    persons = {"evaluated": n, "failures": 0, "partial": False, "found": n, "published": 5, "difference": 1}
    result = {
        "format": 1, "protocol": protocol, "package": "0.1.0", "persons": persons, "fallbacks": {"x": 1},
        "weights": {"name": "embedded", "sha256": "0" * 64, "notes": [], "provenance": {}},
        "run": {"batch": 16, "device": "cpu"},
        "data": {"layout": "x", "files": {"a": "0"}, "left_out": {"b": 2}, "notes": []},
        "figures": figures(measure, rows),
    }  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="result-"))
    save_rows(folder / "rows.npz", rows, {"protocol": "3dpw"})
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def _files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
