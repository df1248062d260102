"""Bodies that are hidden: DPMesh (CVPR 2024), installable.

from dpmesh import Predictor
scene = Predictor.from_pretrained("embedded")("photo.jpg")
scene.people[0].vertices
scene.save("out")
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpmesh.errors import DPMeshError
    from dpmesh.inference.predictor import Predictor
    from dpmesh.inference.scene import Person, Scene
    from dpmesh.model import DPMesh
    from dpmesh.types import Inputs, Prediction

__all__ = ["DPMesh", "DPMeshError", "Inputs", "Person", "Prediction", "Predictor", "Scene"]

# Imported on first use: a bare `import dpmesh` loads neither torch nor OpenCV nor onnxruntime.
_HOME = {
    "DPMesh": "dpmesh.model",
    "DPMeshError": "dpmesh.errors",
    "Inputs": "dpmesh.types",
    "Person": "dpmesh.inference.scene",
    "Prediction": "dpmesh.types",
    "Predictor": "dpmesh.inference.predictor",
    "Scene": "dpmesh.inference.scene",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dpmesh' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__]
