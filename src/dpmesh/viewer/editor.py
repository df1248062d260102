"""Corrections by hand in the viewer: gestures become steps of a document, which fits the bodies again."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float

from dpmesh.errors import DPMeshError
from dpmesh.inference.corrections import Correction, Operation, Part
from dpmesh.skeletons import JOINTS30
from dpmesh.viewer.documents import Document
from dpmesh.viewer.floor_panel import FloorPanel
from dpmesh.viewer.results import ShownResult
from dpmesh.viewer.views import NEAR_CAMERA

if TYPE_CHECKING:
    import viser

_PARTS: dict[str, Part] = {"all": "all", "arms": "arms", "legs": "legs"}


class Editor:
    """The panel of corrections. show: draws a result. place: of a joint that is drawn, camera frame. position: of the
    frame that is shown."""

    def __init__(
        self,
        server: "viser.ViserServer",
        document: Document,
        show: Callable[[ShownResult], None],
        place: Callable[[str, int], Float[np.ndarray, "3"] | None],
        position: Callable[[], int],
    ) -> None:
        self.server, self.document = server, document
        self._show, self._place, self._position = show, place, position
        gui, of_image = server.gui, document.frame(0) is None
        with gui.add_folder("Correct"):
            self._person = gui.add_dropdown("Person", self._labels())
            self._joint = gui.add_dropdown("Joint", JOINTS30.joints, initial_value="R_Wrist")
            self._drag = gui.add_checkbox("Drag it in space", False)
            gui.add_button("Put it at my next click").on_click(lambda _: self._arm())
            gui.add_button("It is hidden").on_click(lambda _: self._step("hide", joint=self._joint.value))
            if of_image:
                part = gui.add_dropdown("Left and right of", tuple(_PARTS))
                swap = gui.add_button("Exchange left and right")
                swap.on_click(lambda _: self._step("swap", part=_PARTS[part.value]))
            gui.add_button("Delete this person").on_click(lambda _: self._step("delete"))
            if of_image:
                gui.add_markdown("A new person: hold Shift and drag a box in the camera's view.")
            self.floor = FloorPanel(gui, self._set_floor)
            steps = gui.add_button_group("Steps", ("Undo", "Redo"))
            steps.on_click(lambda _: self._undo() if steps.value == "Undo" else self._redo())
            overlay = None
            if document.has_overlay:
                overlay = gui.add_checkbox("Save the overlay, too", False)
            save = gui.add_button("Save")
            save.on_click(lambda _: self._save(overlay is not None and overlay.value))
            self._status = gui.add_markdown(document.unapplied)
        self._undone: list[Correction] = []
        """Steps that can be redone, the next one last."""
        self._gizmo: Any = None
        self._armed = False
        for handle in (self._person, self._joint, self._drag):
            handle.on_update(lambda _: self.follow())
        if of_image:
            server.scene.on_rect_select(modifier="shift")(self._boxed)
        if document.steps:
            self._apply("opened")

    def pick(self, name: str, joint: int) -> None:
        """A joint was clicked."""
        self._person.value = f"person {int(name.removeprefix('person_'))}"
        self._joint.value = JOINTS30.joints[joint]

    def follow(self) -> None:
        """Arrows at the chosen joint of the frame that is shown; where they are let go, the joint is pinned."""
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

    def _labels(self) -> tuple[str, ...]:
        return tuple(f"person {number}" for number in self.document.numbers()) or ("none",)

    @property
    def _number(self) -> int:
        return int(self._person.value.removeprefix("person ")) if self._person.value != "none" else 0

    def _step(self, op: Operation, **fields: Any) -> None:
        if op not in ("add", "floor"):
            fields["person"] = self._number
        frame = self.document.frame(self._position())
        if frame is not None and (op in ("move", "hide") or "pixels" in fields):
            fields["frame"] = frame
        self.document.steps.append(Correction(op, **fields))
        if self._apply(self.document.steps[-1].mark):
            self._undone.clear()
        else:
            self.document.steps.pop()

    def _apply(self, what: str) -> bool:
        began = time.perf_counter()
        self._status.content = "Fitting …"
        try:
            result = self.document.shown()
        except DPMeshError as error:
            self._status.content = f"**Not possible:** {error.what}"
            return False
        self._show(result)
        self.floor.follow(result.floor)
        labels = self._labels()
        if self._person.options != labels:
            more = len(labels) > len(self._person.options)
            self._person.options = labels
            if more and self.document.steps and self.document.steps[-1].op == "add":
                self._person.value = labels[-1]
        count = len(self.document.steps)
        seconds = time.perf_counter() - began
        self._status.content = f"{what}: {count} step{'s' * (count != 1)}, fitted in {seconds:.2f} s"
        self._status.content += "".join(f"\n\n**{note}**" for note in result.notes)
        self.follow()
        return True

    def _undo(self) -> None:
        self.floor.stop()
        if not self.document.steps:
            self._status.content = "Nothing to undo."
            return
        undone = self.document.steps.pop()
        self._undone.append(undone)
        self._apply(f"undone: {undone.mark}")

    def _redo(self) -> None:
        self.floor.stop()
        if not self._undone:
            self._status.content = "Nothing to redo."
            return
        again = self._undone.pop()
        self.document.steps.append(again)
        self._apply(f"redone: {again.mark}")

    def _save(self, overlay: bool) -> None:
        self._status.content = "Saving …"
        try:
            folder = self.document.save(overlay)
        except DPMeshError as error:
            self._status.content = f"**Not saved:** {error}"
            return
        self._status.content = f"Saved: {folder}"

    def _dragged(self, event: "viser.TransformControlsEvent") -> None:
        if event.phase == "end":
            x, y, z = (round(float(v), 4) for v in event.target.position)
            self._step("move", joint=self._joint.value, point=(x, y, z))

    def _arm(self) -> None:
        self.floor.stop()
        self._armed = True
        self._status.content = f"Click where {self._joint.value} is in the image."

    def _set_floor(self, alone: bool, more: bool, fields: dict[str, Any]) -> None:
        """more: in place of the last step, which set the floor."""
        before = self.document.steps.pop() if more else None
        count = len(self.document.steps)
        self._step("floor", people=(self._number,) if alone else None, **fields)
        if before is not None and len(self.document.steps) == count:  # not possible
            self.document.steps.append(before)

    def clicked(self, event: "viser.SceneClickEvent") -> bool:
        """Whether a click in the scene was for the editor: it places a joint or a point of the floor."""
        if not self._armed and not self.floor.picking:
            return False
        if np.linalg.norm(event.ray_origin) > NEAR_CAMERA:
            self._status.content = "**Not possible:** clicks place points in the camera's view alone."
            return True
        pixel = self._pixel(np.array(event.ray_direction))
        if self._armed:
            self._armed = False
            self._step("move", joint=self._joint.value, pixel=pixel)
        else:
            last = self.document.steps[-1] if self.document.steps else None
            self.floor.clicked(pixel, last if last is not None and last.pixels is not None else None)
        return True

    def _boxed(self, event: "viser.SceneRectSelectEvent") -> None:
        camera = event.client.camera
        if np.linalg.norm(camera.position) > NEAR_CAMERA:
            self._status.content = "**Not possible:** boxes are drawn in the camera's view alone."
            return
        half = np.tan(camera.fov / 2) * np.array([camera.aspect, 1.0])
        corners = [
            self._pixel(np.append((2 * np.array(corner) - 1) * half, 1.0))
            for corner in (event.screen_min, event.screen_max)
        ]
        self._step("add", box=(*corners[0], *corners[1]))

    def _pixel(self, ray: Float[np.ndarray, "3"]) -> tuple[float, float]:
        """Of a ray from the camera, image pixels."""
        x, y, z = self.document.K @ ray
        return cast("tuple[float, float]", (round(float(x / z), 2), round(float(y / z), 2)))
