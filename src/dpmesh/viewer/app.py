"""`dpmesh view`: a result in the browser, through viser. Bound to this machine unless another host is given."""

import io
import threading
import time
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from dpmesh.errors import ConfigError
from dpmesh.render.sigma import legend_html
from dpmesh.skeletons import JOINTS30
from dpmesh.viewer.documents import Document
from dpmesh.viewer.editor import Editor
from dpmesh.viewer.results import ShownResult
from dpmesh.viewer.stage import Stage
from dpmesh.viewer.views import NEAR_CAMERA, from_camera, from_side, save_view

if TYPE_CHECKING:
    import viser

_SPEEDS = ("0.25", "0.5", "1", "2")
_SWITCHES = (
    ("bodies", "Bodies", True), ("skeleton", "Skeleton", False), ("keypoints", "2D keypoints", False),
    ("image", "Image", True), ("floor", "Floor", False), ("hypotheses", "Hypotheses", True),
    ("sigma", "Colour by sigma", False),
)  # fmt: skip
_MEASURE = "Show the skeleton, click joints."
"""As long as a measurement, so that nothing below moves."""


def import_viser() -> Any:
    """viser. Raises ConfigError where it is not installed."""
    try:
        import viser
    except ImportError:
        raise ConfigError(
            "viser, which shows results in the browser, is not installed",
            where="view",
            fix="pip install 'dpmesh[viewer]', or write a page that needs no server: --html FILE.",
        ) from None
    return viser


class Viewer:
    """A server that shows a result, and another one beside it. `close` stops it.

    port 0 takes a free one. Raises ConfigError without viser.
    """

    def __init__(
        self,
        result: ShownResult,
        other: ShownResult | None = None,
        host: str = "127.0.0.1",
        port: int = 8080,
        document: Document | None = None,
    ) -> None:
        library = import_viser()
        with redirect_stdout(io.StringIO()):  # its banner
            self.server: viser.ViserServer = library.ViserServer(host=host, port=port, verbose=False)
        self.result = result
        self.server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="small")
        self.server.gui.main_panel.dock_right()  # beside the view, not over it
        self.server.gui.set_panel_label(f"dpmesh: {result.title}")
        self.stage = Stage(self.server, result)
        self.other = None if other is None else Stage(self.server, other, "/other")
        self._rows: dict[str, tuple[Any, Any]] = {}
        """Of each person: the controls."""
        self._switches: dict[str, Any] = {}
        self._closed = threading.Event()
        self._lock = threading.RLock()
        self._controls()
        self.editor: Editor | None = None
        if document is not None:
            self.editor = Editor(self.server, document, self.show, self.stage_joint, lambda: self.stage.frame)
        self.draw()
        self.server.scene.on_click()(self._clicked)
        self.server.on_client_connect(self._connected)
        threading.Thread(target=self._play, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{self.server.get_host()}:{self.server.get_port()}"

    @property
    def stages(self) -> list[Stage]:
        return [self.stage] if self.other is None else [self.stage, self.other]

    def close(self) -> None:
        self._closed.set()
        self.server.stop()

    def wait(self) -> None:
        """Until `close`, or KeyboardInterrupt."""
        while not self._closed.wait(0.5):
            pass

    def draw(self) -> None:
        with self._lock:
            for stage in self.stages:
                stage.draw()
            self._measure()

    def show_frame(self, frame: int) -> None:
        with self._lock:
            self.stage.frame = frame
            if self.editor is not None:
                self.editor.follow()
            if self.other is not None:  # the frame of the same time
                times = self.other.result.times
                self.other.frame = int(np.abs(times - self.result.times[frame]).argmin())
            self.draw()

    def show(self, result: ShownResult) -> None:
        """Another result of the same image, as after a correction."""
        with self._lock:
            before = self.stage
            before.hide()
            self.result = result
            self.stage = Stage(self.server, result)
            self.stage.shown, self.stage.frame = before.shown, before.frame
            self.stage.picked = [one for one in before.picked if one[0] in self.stage.people]
            if result.floor is not None and before.result.floor is None:
                self._switches["floor"].value = self.stage.shown.floor = True
            for name in {*before.people} & {*self.stage.people}:  # as the panel has them
                now, old = self.stage.people[name], before.people[name]
                now.visible, now.colour = old.visible, old.colour
            for name in {*self._rows} - {*self.stage.people}:
                for handle in self._rows.pop(name):
                    handle.remove()
            for name in {*self.stage.people} - {*before.people}:
                with self._people:
                    self._person(name)
            self.draw()
            for client in self.server.get_clients().values():  # a floor has turned what is up
                if np.linalg.norm(client.camera.position) < NEAR_CAMERA:
                    from_camera(client, self.result)

    def stage_joint(self, name: str, joint: int) -> Float[np.ndarray, "3"] | None:
        """Place of a joint that is drawn, camera frame."""
        return self.stage.joint(name, joint) if name in self.stage.people else None

    def _controls(self) -> None:
        gui = self.server.gui
        eye = gui.add_button("Camera's view")
        eye.on_click(lambda event: from_camera(event.client, self.result))
        side = gui.add_button("From the side")
        side.on_click(lambda event: from_side(event.client, self.result))
        with gui.add_folder("Show"):
            absent: set[str] = set()
            if not any(person.of for person in self.result.people):
                absent.add("hypotheses")
            if not any(np.isfinite(stage.result.joint_sigma).all(1).any() for stage in self.stages):
                absent.add("sigma")
            for name, label, value in _SWITCHES:
                if name not in absent:
                    self._switch(name, label, value)
            self._legend = gui.add_html(legend_html(), visible=False)
            opacity = gui.add_slider("Opacity", min=0.1, max=1.0, step=0.05, initial_value=1.0)

            @opacity.on_update
            def _(_: Any) -> None:
                self._set("opacity", opacity.value)

        self._timeline()
        self._people = gui.add_folder("People")
        with self._people:
            for name in self.stage.people:
                self._person(name)
        if self.other is not None:
            both = gui.add_checkbox(f"Compare: {self.other.result.title}", True)

            @both.on_update
            def _(_: Any) -> None:
                for drawn in self.other.people.values() if self.other else ():
                    drawn.visible = both.value
                self.draw()

        with gui.add_folder("Measure"):
            self._measured = gui.add_markdown(_MEASURE)
            gui.add_button("Clear").on_click(lambda _: self._clear())
        save = gui.add_button("Save this view as PNG")
        save.on_click(lambda event: save_view(event.client, save))

    def _switch(self, name: str, label: str, value: bool) -> None:
        box = self._switches[name] = self.server.gui.add_checkbox(label, value)
        box.on_update(lambda _: self._set(name, box.value))

    def _set(self, name: str, value: object) -> None:
        for stage in self.stages:
            setattr(stage.shown, name, value)
        self._legend.visible = self.stage.shown.sigma
        self.draw()

    def _person(self, name: str) -> None:
        drawn = self.stage.people[name]
        if name in self._rows or drawn.person.of:
            return
        box = self.server.gui.add_checkbox(drawn.person.label, True)
        red, green, blue = (round(255 * c) for c in drawn.colour)
        colour = self.server.gui.add_rgb(
            f"Colour {drawn.person.label.removeprefix('person ')}", (red, green, blue)
        )

        self._rows[name] = box, colour

        @box.on_update
        def _(_: Any) -> None:
            if (now := self.stage.people.get(name)) is not None:
                now.visible = box.value
            self.draw()

        @colour.on_update
        def _(_: Any) -> None:
            r, g, b = colour.value
            if (now := self.stage.people.get(name)) is not None:
                now.colour = (r / 255, g / 255, b / 255)
            self.draw()

    def _timeline(self) -> None:
        count = len(self.result.times)
        self._playing = self._time = None
        if count < 2:
            return
        gui = self.server.gui
        with gui.add_folder("Time"):
            self._time = gui.add_slider("Frame", min=0, max=count - 1, step=1, initial_value=0)
            self._playing = gui.add_checkbox("Play", False)
            self._speed = gui.add_dropdown("Speed", _SPEEDS, initial_value="1")
            self._loop = gui.add_checkbox("Loop", True)
        slider = self._time
        slider.on_update(lambda _: self.show_frame(int(slider.value)))

    def _play(self) -> None:
        """Steps in real time; where the browser is slow, frames are left out."""
        began, at = 0.0, 0.0
        while not self._closed.wait(0.02):
            if (
                self._playing is None
                or self._time is None
                or not self._playing.value
                or not self.server.get_clients()
            ):
                began = 0.0
                continue
            times, now = self.result.times, time.monotonic()
            if not began:
                began, at = now, float(times[int(self._time.value)])
                if int(self._time.value) == len(times) - 1:
                    at = float(times[0])
            wanted = at + (now - began) * float(self._speed.value)
            if wanted > times[-1] and not self._loop.value:
                self._playing.value = False
            elif wanted > times[-1]:
                began, at = now, float(times[0])
                wanted = at
            frame = int(np.searchsorted(times, wanted + 1e-6, side="right")) - 1
            if frame != int(self._time.value):
                self._time.value = max(0, frame)  # its on_update draws

    def _clicked(self, event: "viser.SceneClickEvent") -> None:
        if self.editor is not None and self.editor.clicked(event):
            return
        joint = self.stage.joint_at(np.array(event.ray_origin), np.array(event.ray_direction))
        if joint is not None:
            self._pick(*joint)

    def _pick(self, name: str, joint: int) -> None:
        picked = self.stage.picked
        if len(picked) == 3:
            picked.clear()
        if (name, joint) not in picked:
            picked.append((name, joint))
        if self.editor is not None:
            self.editor.pick(name, joint)
        self.draw()

    def _clear(self) -> None:
        self.stage.picked.clear()
        self.draw()

    def _measure(self) -> None:
        picked = self.stage.picked
        if not picked:
            self._measured.content = _MEASURE
            return
        text = " – ".join(JOINTS30.joints[joint] for _, joint in picked)
        places = [place for one in picked if (place := self.stage.joint(*one)) is not None]
        if len(places) == len(picked) == 2:
            text += f": **{100 * np.linalg.norm(places[0] - places[1]):.1f} cm**"
        elif len(places) == len(picked) == 3:
            one, two = places[0] - places[1], places[2] - places[1]
            cosine = one @ two / max(float(np.linalg.norm(one) * np.linalg.norm(two)), 1e-9)
            text += f": **{np.degrees(np.arccos(np.clip(cosine, -1, 1))):.0f}°**"
        self._measured.content = text

    def _connected(self, client: "viser.ClientHandle") -> None:
        """The camera's view, also when the window or the panel takes another size."""
        shape = 0.0

        @client.camera.on_update
        def _(camera: "viser.CameraHandle") -> None:
            nonlocal shape
            if camera.aspect != shape and np.linalg.norm(camera.position) < NEAR_CAMERA:
                shape = camera.aspect
                from_camera(client, self.result)

        from_camera(client, self.result)
