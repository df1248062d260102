"""The exported ONNX file equals the model, for any batch size."""

import io
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from dpmesh.cli.export import refuse_out
from dpmesh.cli.main import main
from dpmesh.config import EMBEDDED, PAPER, RELEASE, narrow
from dpmesh.errors import ConfigError, OutputError
from dpmesh.fuse import optimise_for_inference
from dpmesh.model import DPMesh
from dpmesh.onnx import INPUTS, OUTPUTS, export_onnx, join_weights, outputs_of
from dpmesh.types import Inputs


def model_of(name: str) -> DPMesh:
    """embedded as shipped; the others narrow, every number random (a layer at zero would hide what is behind it)."""
    if name == "embedded":  # with an uncertainty at random, whether or not the shipped weights have one
        torch.manual_seed(0)
        model = DPMesh(EMBEDDED).eval()
        model.load_state_dict(DPMesh.from_pretrained("embedded").state_dict(), strict=False)
        assert model.regressor.uncertainty is not None
        nn.init.normal_(model.regressor.uncertainty.out, std=0.05)
        return model
    torch.manual_seed(0)
    model = DPMesh(narrow({"paper": PAPER, "release": RELEASE}[name])).eval()
    for p in model.parameters():
        nn.init.normal_(p, std=p[0].numel() ** -0.5 if p.dim() > 1 else 0.3)
    return model


def inputs(people: int) -> Inputs:
    g = torch.Generator().manual_seed(people)
    return Inputs(
        crop=torch.rand(people, 3, 256, 256, generator=g),
        joints=torch.rand(people, 30, 2, generator=g) * 256,
        visible=(torch.rand(people, 30, generator=g) < 0.7).float(),
        focal=torch.rand(people, generator=g) * 1000 + 300,
    )


def run(file: Path, data: Inputs, outputs: tuple[str, ...] = OUTPUTS) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    assert tuple(o.name for o in session.get_outputs()) == outputs
    values = session.run(None, {name: getattr(data, name).numpy() for name in INPUTS})
    return dict(zip(outputs, values, strict=True))


def assert_the_same(file: Path, model: DPMesh, data: Inputs) -> None:
    """To 1e-3 of a metre, a radian or a standard deviation; joints2d, which are pixels, to 1e-2."""
    with torch.inference_mode():
        expected = model(data)
    for name, values in run(file, data, outputs_of(model)).items():
        reference = getattr(expected, name).numpy()
        assert values.shape == reference.shape, name
        assert np.abs(values - reference).max() < (1e-2 if name == "joints2d" else 1e-3), name
        assert reference.std() > 1e-3, f"{name} is constant"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[DPMesh, Path]]:
    """By name: the optimised model and its file, made once."""

    @cache
    def made(name: str) -> tuple[DPMesh, Path]:
        model, folder = optimise_for_inference(model_of(name)), tmp_path_factory.mktemp(name) / "out"
        assert export_onnx(model, folder / "model.onnx") == [folder / "model.onnx"] == list(folder.iterdir())
        return model, folder / "model.onnx"

    return made


@pytest.fixture(scope="module")
def exported_by_the_verb(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Random weights, their file by `dpmesh export onnx`, and what it printed."""
    folder = tmp_path_factory.mktemp("verb")
    torch.manual_seed(0)
    model = DPMesh(replace(EMBEDDED, name="random"))
    assert model.regressor.uncertainty is not None
    nn.init.normal_(model.regressor.uncertainty.out, std=0.05)
    model.save_pretrained(folder / "w", {})
    with redirect_stdout(io.StringIO()) as printed:
        assert main(["export", "onnx", str(folder / "w"), str(folder / "m.onnx")]) == 0
    return folder / "w", folder / "m.onnx", printed.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["embedded", "paper", "release"])
def test_an_exported_model_is_the_same_function_for_any_number_of_people(
    name: str, exported: Callable[[str], tuple[DPMesh, Path]]
):
    model, file = exported(name)
    for people in (1, 2, 5):
        assert_the_same(file, model, inputs(people))
    assert (outputs_of(model) == OUTPUTS) == (not model.predicts_sigma)
    assert name != "embedded" or outputs_of(model)[-1] == "joint_sigma"


@pytest.mark.slow
def test_weights_beyond_one_file_are_one_external_file(
    tmp_path: Path, exported_by_the_verb: tuple[Path, Path, str]
):
    """Beyond 2 GiB the exporter writes one file for each weight; here onnx writes a small model in this way."""
    weights, whole, _ = exported_by_the_verb
    model = optimise_for_inference(DPMesh.from_pretrained(weights))
    onnx.save_model(
        onnx.load(str(whole)), str(tmp_path / "m.onnx"), save_as_external_data=True, all_tensors_to_one_file=False,
        size_threshold=1024, convert_attribute=True,
    )  # fmt: skip
    assert len(list(tmp_path.iterdir())) > 100
    join_weights(tmp_path / "m.onnx")
    assert {p.name for p in tmp_path.iterdir()} == {"m.onnx", "m.onnx.data"}
    assert (tmp_path / "m.onnx.data").stat().st_size > 5e6
    assert_the_same(tmp_path / "m.onnx", model, inputs(1))


@pytest.mark.slow
def test_the_verb(
    tmp_path: Path, exported_by_the_verb: tuple[Path, Path, str], capsys: pytest.CaptureFixture[str]
):
    weights, out, message = exported_by_the_verb
    words = ["export", "onnx", str(weights), str(out)]
    assert str(out) in message and "vertices" in message and "joint_sigma" in message
    values = run(out, inputs(3), (*OUTPUTS, "joint_sigma"))
    assert values["vertices"].shape == (3, 6904, 3) and values["joint_sigma"].shape == (3, 30)
    assert main(words) == 1  # not over an old one
    error = capsys.readouterr().err
    assert "--overwrite" in error and len(error.splitlines()) == 1
    assert main(["export", "onnx", str(tmp_path / "nowhere"), str(tmp_path / "n.onnx")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir()) and {p.name for p in out.parent.iterdir()} == {"w", "m.onnx"}


def test_a_model_in_half_precision_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="fp32"):
        export_onnx(optimise_for_inference(DPMesh(EMBEDDED), dtype=torch.bfloat16), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("model.safetensors", ["--overwrite"], "does not end in .onnx"),
        ("notes", ["--overwrite"], "does not end in .onnx"),
        ("folder.onnx", ["--overwrite"], "is a folder"),
        ("old.onnx", [], "already"),
        ("link.onnx", [], "already"),
        ("new.onnx", [], "new.onnx.data: the file exists already"),
        ("x" * 5000 + ".onnx", [], "longer than a path"),
        ("caf\udce9.onnx", [], "cannot be written"),
        ("old.onnx/new.onnx", [], "cannot be written"),
    ],
)
def test_what_an_export_leaves_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.setattr("dpmesh.onnx.trace", lambda _, file: file.write_bytes(b"a model"))
    for file in ("model.safetensors", "notes", "old.onnx", "new.onnx.data"):
        (tmp_path / file).write_text("mine")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "link.onnx").symlink_to(tmp_path / "nowhere")
    before = {p.name for p in tmp_path.iterdir()}
    assert main(["export", "onnx", "embedded", str(tmp_path / name), *words]) == 1
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1, err
    assert {p.name for p in tmp_path.iterdir()} == before
    assert {(tmp_path / file).read_text() for file in ("model.safetensors", "notes", "old.onnx")} == {"mine"}


def test_an_exported_file_has_the_umasks_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpmesh.onnx.trace", lambda _, file: file.write_bytes(b"a model"))
    old = os.umask(0o022)
    try:
        assert main(["export", "onnx", "embedded", str(tmp_path / "new" / "a.onnx")]) == 0
    finally:
        os.umask(old)
    assert (tmp_path / "new" / "a.onnx").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o755


def small_model(path: Path, outside: str = "") -> None:
    """An ONNX model of one step; its weight is stored in the file `outside`, if there is one."""
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [2.0])
    if outside:
        weight.ClearField("float_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=outside)
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    step = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([step], "g", ends[:1], ends[1:], [weight])
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize("content", [b"", b"my notes\n", b"\x08\x08", bytes(1000)])
def test_overwrite_replaces_only_a_model(tmp_path: Path, content: bytes) -> None:
    out = tmp_path / "m.onnx"
    out.write_bytes(content)
    with pytest.raises(OutputError, match="is not part of an ONNX model"):
        refuse_out(out, overwrite=True)
    small_model(out)
    refuse_out(out, overwrite=True)
    data = tmp_path / "m.onnx.data"
    data.write_bytes(b"mine")
    with pytest.raises(
        OutputError, match=r"m\.onnx\.data: is not part of an ONNX model"
    ):  # the model does not refer to it
        refuse_out(out, overwrite=True)
    small_model(out, data.name)
    refuse_out(out, overwrite=True)
    out.unlink()
    with pytest.raises(OutputError, match=r"m\.onnx\.data: is not part of an ONNX model"):
        refuse_out(out, overwrite=True)
