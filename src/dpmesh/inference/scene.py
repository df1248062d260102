"""The result of a prediction: who stands where, in one camera frame."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dpmesh.inference.formats import FORMATS, Colouring
from dpmesh.inference.scene_data import FocalSource, Person, SceneData

__all__ = ["FocalSource", "Person", "Scene"]


@dataclass(frozen=True, eq=False)
class Scene(SceneData):
    """Everybody in one image, seen by one camera. Its fields: scene_data.SceneData."""

    def save(
        self,
        out: str | Path,
        name: str | None = None,
        formats: Iterable[str] | None = None,
        overwrite: bool = False,
        colour: Colouring = "person",
    ) -> Path:
        """Write `out/name/` (name: the image's stem) whole or not at all; returns that folder.

        formats: of "overlay", "glb", "obj", "npz", "json"; None is all. colour: of the overlay's bodies, "person" (one
        for each) or "sigma" (by `joint_sigma`). A result of the same image and options is kept, and formats that it
        lacks are added. With `overwrite` any earlier result there is replaced, and the formats that it had are written
        anew as well. Files that this package did not write are never touched.

        Raises OutputError where it cannot be written, where the folder is not known to be a result of this package, or
        holds another one and `overwrite` is off; ConfigError for "sigma" where it is not known.
        """
        from dpmesh.inference.result_folder import folder_name
        from dpmesh.inference.scene_io import save_scene  # draws: slow to import

        folder = name or folder_name(self.source) or "scene"
        chosen = FORMATS if formats is None else tuple(formats)
        return save_scene(self, Path(out), folder, chosen, overwrite, colour)
