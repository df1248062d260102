"""The detector's models that ship with the package, opened at first use."""

from functools import cached_property
from pathlib import Path
from typing import Any

from dpmesh.assets import shipped
from dpmesh.errors import AssetError
from dpmesh.inference.user_models.onnx_file import session_options
from dpmesh.io import open_regular

MODELS = ("ssdlite_mobilenet_v2_coco.onnx", "movenet_multipose.onnx", "movenet_thunder.onnx")
"""Files of shipped/detector: the box model and the two keypoint models."""


class ShippedModels:
    """onnxruntime sessions. folder: other files of the same names."""

    def __init__(self, threads: int, folder: Path | None = None) -> None:
        self.threads, self.folder = threads, folder

    @cached_property
    def boxes(self) -> Any:
        return self._open(MODELS[0])

    @cached_property
    def multipose(self) -> Any:
        return self._open(MODELS[1])

    @cached_property
    def thunder(self) -> Any:
        return self._open(MODELS[2])

    def _open(self, name: str) -> Any:
        return open_session(self.folder / name if self.folder else shipped(f"detector/{name}"), self.threads)


def open_session(path: Path, threads: int) -> Any:
    """An onnxruntime session: quiet, on the CPU, with a fixed number of threads."""
    with open_regular(path, AssetError):  # raises for a missing file, a Git LFS pointer, a web page
        pass
    import onnxruntime  # Here: slow to import.

    try:
        return onnxruntime.InferenceSession(
            str(path), session_options(threads), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # noqa: BLE001  onnxruntime's own classes share no base
        line = " ".join(str(error).split())[:120]
        raise AssetError(
            f"is not a readable ONNX file ({line})", where=str(path), fix="Install or download it again."
        ) from None
