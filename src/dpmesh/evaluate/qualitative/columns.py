"""What is compared: a column of the sheet for each weights and method."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dpmesh.assets import sha256, weights_folder
from dpmesh.checkpoint import WEIGHTS
from dpmesh.errors import ConfigError
from dpmesh.evaluate.baselines import METHODS, OF_CLIPS, WITHOUT_NETWORK, Method, method_of
from dpmesh.inference.options import ModelOptions
from dpmesh.inference.predictor import Predictor
from dpmesh.model import DPMesh

_DEFAULTS = ModelOptions()
MOST = 12
"""Columns of a sheet."""
_TITLES: dict[Method, str] = {
    "network": "network",
    "flip": "network, two passes (flip)",
    "refine": "network, two passes, refined",
    "lifter": "its lifter: keypoints alone",
    "blank": "network, image black",
    "fit": "keypoint fit",
    "t-pose": "T-pose",
}


@dataclass(frozen=True, eq=False)
class Column:
    """title, subtitle: the two lines above it. weights, weights_sha256: empty for a method without a network, whose
    checksum is that of the pose prior it uses, if any."""

    title: str
    subtitle: str
    method: Method
    weights: str
    weights_sha256: str
    predictor: Predictor

    def record(self) -> dict[str, object]:
        return {
            "title": self.title,
            "subtitle": self.subtitle,
            "method": self.method,
            "method_is": METHODS[self.method],
            "weights": self.weights,
            "sha256": self.weights_sha256,
        }


def open_columns(
    weights: Sequence[str | Path] = ("embedded",),
    methods: Sequence[Method] = ("network",),
    labels: Sequence[str] = (),
    options: ModelOptions = _DEFAULTS,
) -> tuple[Column, ...]:
    """Every method of every weights, in this order; a method without a network once, with the first weights' body.

    labels: the columns' titles, one for each weights (default: their names). options: all but the
    weights. All weights are held in memory at once. Raises ConfigError, WeightsError, AssetError,
    InputError.
    """
    names = [str(one) for one in weights]
    chosen: list[Method] = list(dict.fromkeys(methods))
    if labels and len(labels) != len(names):
        raise ConfigError(
            f"{len(labels)} labels for {len(names)} weights", where="labels", fix="Give one for each."
        )
    titles = list(labels) or _titles(names)
    with_network: list[Method] = [method for method in chosen if method not in WITHOUT_NETWORK]
    without: list[Method] = [method for method in chosen if method in WITHOUT_NETWORK]
    pairs: Sequence[tuple[int, Method]] = [
        *((i, method) for i in range(len(names)) for method in with_network),
        *((0, method) for method in without),
    ]
    if len(pairs) > MOST:
        raise ConfigError(f"{len(pairs)} columns; a sheet has at most {MOST}", where="weights × methods")
    opened: dict[str, Predictor] = {}
    columns: list[Column] = []
    for i, method in pairs:
        name = names[i]
        if name not in opened:
            opened[name] = Predictor.from_pretrained(**vars(replace(options, weights=name, refine=False)))
        columns.append(_column(opened[name], name, titles[i], method, len(chosen) > 1))
    return tuple(columns)


def _column(plain: Predictor, name: str, title: str, method: Method, several: bool) -> Column:
    assert isinstance(plain.model, DPMesh)
    path = WITHOUT_NETWORK.get(method, weights_folder(name) / WEIGHTS)
    content = sha256(path) if path is not None and path.is_file() else ""
    predictor = plain
    if method != "network" and method in OF_CLIPS:
        raise ConfigError(
            f"{method} is a method of clips", where="methods", fix="dpmesh eval run synthocc-video"
        )
    if method != "network":
        asked = method_of(method, plain.model)
        predictor = Predictor(
            asked, plain.detector, name, plain.batch, plain.weights.get("body"), plain.notes
        )
    if method in WITHOUT_NETWORK:
        return Column(_TITLES[method].capitalize(), "no network", method, "", content, predictor)
    subtitle = _TITLES[method] if several or method != "network" else ""
    return Column(title, subtitle, method, name, content, predictor)


def _titles(names: Sequence[str]) -> list[str]:
    """The folders' own names, or the whole paths where those meet."""
    short = [Path(name).resolve().name if Path(name).is_dir() else name for name in names]
    count = Counter(short)
    return [one if count[one] == 1 else name for one, name in zip(short, names, strict=True)]
