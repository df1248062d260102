"""Configs from dictionaries: invalid types, sizes and forms are refused in one line that names the setting."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from dpmesh.config import EMBEDDED, PAPER, RELEASE, DPMeshConfig
from dpmesh.config_io import from_dict, to_dict
from dpmesh.errors import ConfigError
from dpmesh.pose_prior.vposer import VPoserConfig
from dpmesh.pose_prior.vqvae import PoseVQVAEConfig


@dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclass(frozen=True)
class Outer:
    either: int | str = 0
    perhaps: float | None = None
    pair: tuple[int, str] = (1, "a")
    many: tuple[float, ...] = ()
    one_or_two: Literal[1, 2] = 1
    several: tuple[int, ...] | str = ()
    inner: Inner = field(default_factory=Inner)
    number: float = 0.0
    whole: int = 0
    sure: bool = False


def test_valid_values_are_taken() -> None:
    plain = {
        "either": "x",
        "perhaps": 2,
        "pair": [3, "b"],
        "many": [1, 2.5],
        "one_or_two": 2,
        "several": [1, 2],
    }
    assert from_dict(Outer, plain) == Outer("x", 2.0, (3, "b"), (1.0, 2.5), 2, (1, 2))
    assert from_dict(Outer, {"perhaps": None, "several": "all"}) == Outer(several="all")


DEEP: Any = []
for _ in range(400):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("either", 1.5), ("either", None), ("either", [1]), ("either", True), ("perhaps", "x"), ("perhaps", [None]),
        ("pair", 3), ("pair", [3]), ("pair", [3, "b", 4]), ("pair", ["b", 3]), ("pair", {"0": 3}), ("many", "ab"),
        ("many", None), ("many", ["a"]), ("many", [[1.0]]), ("one_or_two", True), ("one_or_two", 1.0),
        ("one_or_two", []),
        ("several", [1, "a"]), ("several", 5), ("inner", 5), ("inner", [1]), ("inner", None), ("inner", {"size": "x"}),
        ("number", float("nan")), ("number", float("inf")), ("number", 10**400), ("number", True), ("number", "1"),
        ("whole", 1.0), ("whole", True), ("whole", None), ("sure", 1), ("many", [float("nan")]),
        ("perhaps", float("inf")),
        ("either", DEEP), ("inner", DEEP), ("many", DEEP), ("one_or_two", DEEP), ("whole", "x" * 10**6),
    ],
)  # fmt: skip
def test_invalid_values_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        from_dict(Outer, {name: value})
    assert len(str(caught.value)) < 300


def edited(config: DPMeshConfig, path: str, value: object) -> dict[str, Any]:
    plain = json.loads(json.dumps(to_dict(config)))
    *tables, name = path.split(".")
    table = plain
    for one in tables:
        table = table[one]
    assert name in table
    table[name] = value
    return plain


SIZES = [
    "backbone.joints", "backbone.vae.layers", "backbone.vae.groups", "backbone.vae.latent_channels",
    "backbone.unet.layers",
    "backbone.unet.heads", "backbone.unet.groups", "backbone.unet.context_width", "backbone.fused_channels",
    "backbone.fused_groups", "prompt.width", "prompt.layers", "regressor.width", "regressor.heads", "regressor.inner",
    "regressor.decoder_layers", "regressor.volume_depth", "regressor.joints", "regressor.pose_code",
    "pose_prior.tokens",
    "pose_prior.codes", "pose_prior.code_width", "pose_prior.encoder_width", "pose_prior.decoder_width",
    "pose_prior.joints", "token_width",
]  # fmt: skip


@pytest.mark.parametrize("path", SIZES)
@pytest.mark.parametrize("size", [0, -1, 10**9, 10**400])
def test_impossible_sizes_are_refused(path: str, size: int) -> None:
    with pytest.raises(ConfigError, match=path.rpartition(".")[2]) as caught:
        from_dict(DPMeshConfig, edited(EMBEDDED, path, size))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("config", "path", "value"),
    [
        (EMBEDDED, "backbone.unet.channels", [10**9] * 4),
        (EMBEDDED, "backbone.unet.channels", [32, 64, 96]),
        (EMBEDDED, "backbone.unet.channels", [32] * 10**4),
        (EMBEDDED, "backbone.unet.channels", [-32, 64, 96, 96]),
        (EMBEDDED, "backbone.vae.channels", [0, 32, 64]),
        (EMBEDDED, "backbone.unet.map_sizes", [8]),
        (EMBEDDED, "backbone.unet.map_sizes", [8, 16, 64]),
        (EMBEDDED, "backbone.unet.map_sizes", [8, 16, 32]),
        (EMBEDDED, "backbone.unet.attention", [False] * 4),
        (EMBEDDED, "backbone.vae.latent_scale", 0),
        (EMBEDDED, "backbone.unet.timestep", -1),
        (EMBEDDED, "depth_scale", float("nan")),
        (EMBEDDED, "depth_scale", -2.5),
        (EMBEDDED, "lora_rank", -4),
        (PAPER, "lora_rank", 10**9),
        (RELEASE, "pose_prior.joints", 24),
        (RELEASE, "pose_prior.hidden", 0),
        (EMBEDDED, "frozen", "vae"),
        (EMBEDDED, "backbone", [1]),
        (EMBEDDED, "backbone", {"kind": ["timm"]}),
        (EMBEDDED, "backbone", {"kind": "timm", "depths": [10**9]}),
    ],
)
def test_other_impossible_settings_are_refused(config: DPMeshConfig, path: str, value: object) -> None:
    with pytest.raises(ConfigError):
        from_dict(DPMeshConfig, edited(config, path, value))


def test_priors_have_sizes_as_well() -> None:
    for kind, name in ((PoseVQVAEConfig, "codes"), (VPoserConfig, "hidden")):
        for size in (0, -1, 10**9):
            with pytest.raises(ConfigError, match=name):
                kind(**{name: size})
