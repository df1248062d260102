"""Recover 3D human meshes from photographs, even under occlusion (DPMesh, CVPR 2024).

>>> from dpmesh import Predictor
>>> predictor = Predictor.from_pretrained()
>>> scene = predictor("examples/park.jpg")
>>> for person in scene:
...     print(person)
Person(score 0.97, box 585 350 705 521, 9.01 m away)
Person(score 0.89, box 3 305 130 548, 8.16 m away)
>>> folder = scene.save("out")  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpmesh.body.files import load_body
    from dpmesh.config import DPMeshConfig
    from dpmesh.errors import (
        AssetError,
        ConfigError,
        DPMeshError,
        InputError,
        OutputError,
        WeightsError,
    )
    from dpmesh.inference.options import ModelOptions, PredictOptions
    from dpmesh.inference.predictor import Predictor
    from dpmesh.inference.scene import Person, Scene
    from dpmesh.model import DPMesh
    from dpmesh.types import Inputs, Prediction
    from dpmesh.video.tracks import Tracks
    from dpmesh.video.video import Video

    __version__: str

__all__ = [
    "AssetError",
    "ConfigError",
    "DPMesh",
    "DPMeshConfig",
    "DPMeshError",
    "InputError",
    "Inputs",
    "ModelOptions",
    "OutputError",
    "Person",
    "PredictOptions",
    "Prediction",
    "Predictor",
    "Scene",
    "Tracks",
    "Video",
    "WeightsError",
    "__version__",
    "load_body",
]

_MODULES = {
    "DPMesh": "dpmesh.model",
    "DPMeshConfig": "dpmesh.config",
    "Inputs": "dpmesh.types",
    "ModelOptions": "dpmesh.inference.options",
    "Person": "dpmesh.inference.scene",
    "PredictOptions": "dpmesh.inference.options",
    "Prediction": "dpmesh.types",
    "Predictor": "dpmesh.inference.predictor",
    "Scene": "dpmesh.inference.scene",
    "Tracks": "dpmesh.video.tracks",
    "Video": "dpmesh.video.video",
    "load_body": "dpmesh.body.files",
}
"""Name -> its module, imported on first use: a bare `import dpmesh` loads neither torch nor OpenCV nor onnxruntime."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'dpmesh' has no attribute {name!r}")
    if name == "__version__":
        return _version()
    return getattr(importlib.import_module(_MODULES.get(name, "dpmesh.errors")), name)


def _version() -> str:
    """Of the installed package; empty where it runs without being installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dpmesh")
    except PackageNotFoundError:
        return ""


def __dir__() -> list[str]:
    return [*__all__]
