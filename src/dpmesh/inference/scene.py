"""The result of a prediction: people in one camera frame, and the images and files made from them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import Float, UInt8

from dpmesh.errors import ConfigError
from dpmesh.geometry.camera import project
from dpmesh.inference.output_formats import FORMATS, Colouring
from dpmesh.inference.scene_data import FocalSource, Person, SceneData

__all__ = ["FocalSource", "Person", "Scene"]


@dataclass(frozen=True, eq=False, repr=False)
class Scene(SceneData):
    """All people in one image of one camera; a sequence of `Person`. Fields: scene_data.SceneData.

    >>> from dpmesh import Predictor
    >>> scene = Predictor.from_pretrained()("examples/park.jpg")
    >>> scene
    Scene(2 people, 1024×576, focal 1175 px, guessed)
    >>> for person in scene:
    ...     print(person.joints3d.shape)  # metres; x right, y down, z forward
    (30, 3)
    (30, 3)
    >>> scene.project(scene[0].joints3d).shape  # image pixels
    (30, 2)
    >>> scene.overlay().shape, scene.side_view().dtype
    ((576, 1024, 3), dtype('uint8'))
    >>> scene.save("out")  # doctest: +SKIP
    >>> Scene.load("out/park")  # doctest: +SKIP
    """

    def __len__(self) -> int:
        return len(self.people)

    def __bool__(self) -> bool:
        """True also without people."""
        return True

    @overload
    def __getitem__(self, index: int) -> Person: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Person, ...]: ...

    def __getitem__(self, index: int | slice) -> Person | tuple[Person, ...]:
        return self.people[index]

    def __iter__(self) -> Iterator[Person]:
        return iter(self.people)

    def project(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 2"]:
        """Points in the camera frame, metres, to image pixels. Raises InputError for a point behind the camera."""
        return project(points, self.K)

    def overlay(self, colour: Colouring = "person") -> UInt8[np.ndarray, "h w 3"]:
        """The image, at most 1600 px long, with the bodies over it, RGB; `overlay.png` of `save`.

        colour: "person" (a colour for each) or "sigma" (by `joint_sigma`, with the scale to the right of the image).
        Raises InputError without an image (Scene.load), ConfigError for "sigma" where it is not predicted.
        """
        from dpmesh.inference.scene_drawing import overlay_image

        return overlay_image(self, colour)

    def side_view(self, colour: Colouring = "person") -> UInt8[np.ndarray, "h w 3"]:
        """Each person from the side, at one scale and on one floor, RGB; `side.png` of `save`. colour: as overlay."""
        from dpmesh.inference.scene_drawing import side_image

        return side_image(self, colour)

    def to_html(self) -> str:
        """One HTML page that shows the people from all sides; it needs neither a server nor a network.

        Raises ConfigError for a loaded scene whose body is not known.
        """
        from dpmesh.inference.scene_page import scene_page

        return scene_page(self)

    def _repr_html_(self) -> str | None:
        """`to_html` in a notebook; None for a loaded scene whose body is not known."""
        from dpmesh.page.page import iframe

        try:
            return iframe(self.to_html())
        except ConfigError:
            return None

    def _repr_png_(self) -> bytes | None:
        """The overlay in a notebook; None without an image."""
        from dpmesh.inference.result_folder import png

        return None if self.image is None else png(self.overlay())

    def save(
        self,
        out: str | Path,
        name: str | None = None,
        formats: Iterable[str] | None = None,
        overwrite: bool = False,
        colour: Colouring = "person",
        glb_image: bool = False,
    ) -> Path:
        """Write `out/name/` (name: the image's stem) whole or not at all; returns that folder.

        formats: of "overlay", "glb", "obj", "npz", "json"; None is all. colour: of the overlay and the side view, as in
        `overlay`. glb_image: the GLB shows the image on a plane behind the people. A result of the same image and
        options is kept, and formats that it lacks are added. With `overwrite` any earlier result there is replaced, and
        the formats that it had are written anew as well. Files that this package did not write are never touched.

        Raises OutputError where it cannot be written, where the folder is not known to be a result of this package, or
        holds another one and `overwrite` is off; ConfigError for "sigma" where it is not predicted; InputError and
        ConfigError for a loaded scene without the image or the body that a format needs.
        """
        from dpmesh.inference.result_folder import folder_name
        from dpmesh.inference.scene_io import save_scene

        folder = name or folder_name(self.source) or "scene"
        chosen = FORMATS if formats is None else tuple(formats)
        return save_scene(self, Path(out), folder, chosen, overwrite, colour, glb_image)

    @classmethod
    def load(
        cls, folder: str | Path, image: str | Path | None = None, body: str | Path | None = None
    ) -> "Scene":
        """The scene that `save` or `dpmesh predict` wrote, of its `scene.npz` and `scene.json`.

        image: its image file, for the overlay; None takes the file that the scene names, if that is there and
        unchanged. body: its body file, for the GLB of a body that is not shipped.

        Raises InputError for a file that is missing, damaged or of another scene.
        """
        from dpmesh.inference.scene_io import load_scene

        return cls(**load_scene(Path(folder), image, body))
