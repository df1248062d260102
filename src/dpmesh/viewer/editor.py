"""Corrections by hand in the viewer: each step fits the bodies again, and a shorter list undoes.

What a step does is in inference/correct.py; this file turns gestures into steps.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from jaxtyping import Float

from dpmesh.errors import DPMeshError, InputError
from dpmesh.inference.corrections import Correction, Corrections, Entry, Part
from dpmesh.inference.predictor import Predictor
from dpmesh.inference.scene import Scene
from dpmesh.skeletons import JOINTS30
from dpmesh.viewer.results import ShownResult, shown_scene

if TYPE_CHECKING:
    import viser

_NEAR_CAMERA = 0.02
"""Metres from the image's camera up to which the view counts as its own."""
_PARTS: dict[str, Part] = {"all": "all", "arms": "arms", "legs": "legs"}


@dataclass(eq=False)
class CorrectedImage:
    """One image's prediction and the steps that correct it. out: folder of the corrected result and its list.

    Raises InputError where the scene is corrected already, has no image, or was predicted with other weights.
    """

    scene: Scene
    predictor: Predictor
    out: Path
    name: str
    steps: list[Correction] = field(default_factory=list[Correction])

    def __post_init__(self) -> None:
        where = self.scene.source or self.name
        if self.scene.corrections:
            raise InputError(
                "is corrected already",
                where=where,
                fix="Open the uncorrected result with --corrections FILE.",
            )
        if self.scene.image is None:
            raise InputError("its image is not there", where=where, fix="Give it with --image FILE.")
        if dict(self.scene.weights) != dict(self.predictor.weights):
            raise InputError("was predicted with other weights", where=where, fix="Give them with --weights.")

    def corrected(self) -> Scene:
        return self.predictor.correct(self.scene, self.steps)

    def shown(self) -> ShownResult:
        """Raises InputError for a step that the scene does not allow."""
        return shown_scene(self.corrected(), self.predictor.model.body, self.name, self.numbers())

    def numbers(self) -> list[int]:
        """Of the people that are left: as the steps count them."""
        count = len(self.scene) + sum(step.op == "add" for step in self.steps)
        deleted = {step.person for step in self.steps if step.op == "delete"}
        return [number for number in range(count) if number not in deleted]

    def save(self) -> Path:
        """Write the corrected result, and its steps into `corrections.json` beside those of other images.

        Returns the result's folder. Raises OutputError, and InputError for a damaged list.
        """
        folder = self.corrected().save(self.out, self.name, overwrite=True)
        path = self.out / "corrections.json"
        others = Corrections.read(path).entries if path.exists() else ()
        entry = Entry(self.scene.source, self.scene.source_sha256, tuple(self.steps))
        kept = (one for one in others if (one.source, one.sha256) != (entry.source, entry.sha256))
        Corrections((*kept, entry)).write(path)
        return folder


class Editor:
    """The panel of corrections. show: draws a result. person_at: the number of a person's name in the stage."""

    def __init__(
        self,
        server: "viser.ViserServer",
        document: CorrectedImage,
        show: Callable[[ShownResult], None],
        place: Callable[[str, int], Float[np.ndarray, "3"] | None],
    ) -> None:
        self.server, self.document, self._show, self._place = server, document, show, place
        gui = server.gui
        with gui.add_folder("Correct"):
            self._person = gui.add_dropdown("Person", self._labels())
            self._joint = gui.add_dropdown("Joint", JOINTS30.joints, initial_value="R_Wrist")
            self._drag = gui.add_checkbox("Drag it in space", False)
            self._pin = gui.add_button("Put it at my next click")
            hide = gui.add_button("It is hidden")
            self._part = gui.add_dropdown("Left and right of", tuple(_PARTS))
            swap = gui.add_button("Exchange left and right")
            delete = gui.add_button("Delete this person")
            gui.add_markdown("A new person: hold Shift and drag a box in the camera's view.")
            undo = gui.add_button("Undo")
            save = gui.add_button("Save")
            self._status = gui.add_markdown("")
        self._gizmo: Any = None
        self._armed = False
        for handle in (self._person, self._joint, self._drag):
            handle.on_update(lambda _: self._show_gizmo())
        self._pin.on_click(lambda _: self._arm())
        hide.on_click(lambda _: self._step(op="hide", joint=self._joint.value))
        swap.on_click(lambda _: self._step(op="swap", part=_PARTS[self._part.value]))
        delete.on_click(lambda _: self._step(op="delete"))
        undo.on_click(lambda _: self._undo())
        save.on_click(lambda _: self._save())
        server.scene.on_click()(self._clicked)
        server.scene.on_rect_select(modifier="shift")(self._boxed)
        if document.steps:
            self._apply("opened")

    def pick(self, name: str, joint: int) -> None:
        """A joint was clicked."""
        self._person.value = f"person {int(name.removeprefix('person_'))}"
        self._joint.value = JOINTS30.joints[joint]

    def _labels(self) -> tuple[str, ...]:
        return tuple(f"person {number}" for number in self.document.numbers()) or ("none",)

    @property
    def _number(self) -> int:
        return int(self._person.value.removeprefix("person ")) if self._person.value != "none" else 0

    def _step(self, op: Literal["move", "hide", "swap", "delete", "add"], **fields: Any) -> None:
        if op != "add":
            fields["person"] = self._number
        self._try(Correction(op, **fields))

    def _try(self, step: Correction) -> None:
        self.document.steps.append(step)
        if not self._apply(step.mark):
            self.document.steps.pop()

    def _apply(self, what: str) -> bool:
        began = time.perf_counter()
        try:
            result = self.document.shown()
        except DPMeshError as error:
            self._status.content = f"**Not possible:** {error.what}"
            return False
        self._show(result)
        labels = self._labels()
        if self._person.options != labels:
            self._person.options = labels
        count = len(self.document.steps)
        seconds = time.perf_counter() - began
        self._status.content = f"{what}: {count} step{'s' * (count != 1)}, fitted in {seconds:.2f} s"
        self._show_gizmo()
        return True

    def _undo(self) -> None:
        if not self.document.steps:
            self._status.content = "Nothing to undo."
            return
        undone = self.document.steps.pop()
        self._apply(f"undone: {undone.mark}")

    def _save(self) -> None:
        try:
            folder = self.document.save()
        except DPMeshError as error:
            self._status.content = f"**Not saved:** {error}"
            return
        self._status.content = f"Saved: {folder}"

    def _show_gizmo(self) -> None:
        """Arrows at the chosen joint; where they are let go, the joint is pinned."""
        at = None
        if self._drag.value:
            at = self._place(f"person_{self._number:02d}", JOINTS30.index(self._joint.value))
        if self._gizmo is not None and at is None:
            self._gizmo.visible = False
        if at is None:
            return
        if self._gizmo is None:
            self._gizmo = self.server.scene.add_transform_controls(
                "/drag", scale=0.25, disable_rotations=True, depth_test=False, position=at
            )
            self._gizmo.on_update(self._dragged)
        self._gizmo.position, self._gizmo.visible = at, True

    def _dragged(self, event: "viser.TransformControlsEvent") -> None:
        if event.phase == "end":
            x, y, z = (round(float(v), 4) for v in event.target.position)
            self._step(op="move", joint=self._joint.value, point=(x, y, z))

    def _arm(self) -> None:
        self._armed = True
        self._status.content = f"Click where {self._joint.value} is in the image."

    def _clicked(self, event: "viser.SceneClickEvent") -> None:
        if not self._armed:
            return
        self._armed = False
        if np.linalg.norm(event.ray_origin) > _NEAR_CAMERA:
            self._status.content = "**Not possible:** clicks place joints in the camera's view alone."
            return
        self._step(op="move", joint=self._joint.value, pixel=self._pixel(np.array(event.ray_direction)))

    def _boxed(self, event: "viser.SceneRectSelectEvent") -> None:
        camera = event.client.camera
        if np.linalg.norm(camera.position) > _NEAR_CAMERA:
            self._status.content = "**Not possible:** boxes are drawn in the camera's view alone."
            return
        half = np.tan(camera.fov / 2) * np.array([camera.aspect, 1.0])
        corners = [
            self._pixel(np.append((2 * np.array(corner) - 1) * half, 1.0))
            for corner in (event.screen_min, event.screen_max)
        ]
        self._step(op="add", box=(*corners[0], *corners[1]))

    def _pixel(self, ray: Float[np.ndarray, "3"]) -> tuple[float, float]:
        """Of a ray from the camera, image pixels."""
        x, y, z = self.document.scene.K @ ray
        return cast("tuple[float, float]", (round(float(x / z), 2), round(float(y / z), 2)))
