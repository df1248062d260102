"""The part of the corrections' panel that sets the floor: from the feet, by points in the image, or in numbers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dpmesh.geometry.floor import Floor
from dpmesh.inference.corrections import Correction

if TYPE_CHECKING:
    import viser


SetFloor = Callable[[bool, bool, dict[str, Any]], None]
"""Whether for the chosen person only; whether in place of the last step; the other fields of the correction."""


class FloorPanel:
    """Its controls; each makes a step. set_floor: adds it."""

    def __init__(self, gui: "viser.GuiApi", set_floor: SetFloor) -> None:
        self._set = set_floor
        with gui.add_folder("Floor", expand_by_default=False):
            self._alone = gui.add_checkbox("This person alone", False)
            gui.add_button("Where the feet are").on_click(lambda _: self._add())
            self._picking = gui.add_checkbox("Click points of it", False)
            self._up = gui.add_vector3("Up", (0.0, -1.0, 0.0), step=0.01)
            self._height = gui.add_number("Camera's height, m", 1.5, min=0.01, step=0.05)
            gui.add_button("Set these numbers").on_click(lambda _: self._set_numbers())

    @property
    def picking(self) -> bool:
        """Whether clicks in the camera's view are points of the floor."""
        return self._picking.value

    def stop(self) -> None:
        """Clicks are no longer the floor's."""
        self._picking.value = False

    def follow(self, floor: Floor | None) -> None:
        """Show the numbers of the floor that is drawn."""
        if floor is not None:
            x, y, z = (round(float(v), 3) for v in floor.up)
            self._up.value, self._height.value = (x, y, z), round(float(floor.height), 3)

    def clicked(self, pixel: tuple[float, float], last: Correction | None) -> None:
        """A further point. last: the last step, where it is of points."""
        before = () if last is None or last.pixels is None else last.pixels
        self._add(bool(before), pixels=(*before, pixel))

    def _set_numbers(self) -> None:
        x, y, z = (float(v) for v in self._up.value)
        self._add(normal=(x, y, z), height=float(self._height.value))

    def _add(self, more: bool = False, **fields: Any) -> None:
        self._set(self._alone.value, more, fields)
