"""One HTML file with everything in it: three.js, the viewer's script, the result's numbers and its GLB.

The scripts are pointer.js and page.js; three.js is bundled by tools/assets/build_three.py. The page asks for nothing
outside itself.
"""

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from dpmesh.assets import shipped
from dpmesh.geometry.floor import Floor
from dpmesh.render.sigma import TICKS, UNSURE, sigma_colours
from dpmesh.skeletons import JOINTS30, SMPL24

_LEVELS = 17
"""Colours of the sigma scale in the page, which interpolates."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PagePerson:
    """A person's rows in order of time; one row in a single image."""

    name: str
    """Of the person's node in the GLB."""
    label: str
    times: Float[np.ndarray, " n"]
    """Seconds."""
    joints3d: Float[np.ndarray, "n 30 3"]
    """Metres, camera frame."""
    joint_sigma: Float[np.ndarray, "n 30"]
    """Metres; NaN where it is not predicted."""
    keypoints2d: Float[np.ndarray, "n 17 3"]
    """COCO-17, x y confidence, image pixels."""
    surface_sigma: Float[np.ndarray, " v"] | None = None
    """Metres, of each vertex of the GLB's mesh."""
    interpolated: Bool[np.ndarray, " n"] | None = None
    others: Sequence[str] = ()
    """Nodes in the GLB of the person's other hypotheses."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PageContent:
    """What a page shows besides the GLB."""

    title: str
    K: Float[np.ndarray, "3 3"]
    image_size: tuple[int, int]
    """(height, width)."""
    people: Sequence[PagePerson]
    jpeg: bytes | None = None
    """The image behind the bodies."""
    mp4: bytes | None = None
    """The video behind animated bodies."""
    step: float = 0.0
    """Seconds between two frames of an animation; 0 for a single image."""
    start: float = 0.0
    """Seconds: where the animation and the video begin."""
    floor: Floor | None = None


def html_page(content: PageContent, glb: bytes) -> str:
    """The page. glb: bodies as nodes NAME and NAME_mesh (inference/glb.py), one animation where `step` is not 0."""
    folder = files("dpmesh.page")
    texts = {name: (folder / f"page.{name.lower()}").read_text("utf-8") for name in ("HTML", "CSS", "JS")}
    parts = {
        "CSS": texts["CSS"],
        "DATA": _script_safe(json.dumps(page_data(content), allow_nan=False, separators=(",", ":"))),
        "GLB": base64.b64encode(glb).decode(),
        "THREE": _three(),
        "JS": (folder / "pointer.js").read_text("utf-8") + texts["JS"],
    }
    page = texts["HTML"]
    for name, text in parts.items():
        before, after = page.split(f"/*{name}*/", 1)
        page = before + text + after
    return page


def iframe(page: str, height: int = 560) -> str:
    """The page as one HTML element, for a notebook."""
    return (
        f'<iframe srcdoc="{html.escape(page, quote=True)}" style="width:100%;height:{height}px;border:0" '
        'sandbox="allow-scripts allow-downloads"></iframe>'
    )


@cache
def _three() -> str:
    return shipped("page/three.js").read_text("utf-8")


def _script_safe(text: str) -> str:
    """JSON that no HTML parser takes for the end of its script element."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def page_data(content: PageContent) -> dict[str, Any]:
    """What page.js reads from the page's element `data`, as plain JSON values."""
    ends = [float(person.times[-1]) for person in content.people if len(person.times)]
    colours = np.rint(255 * sigma_colours(np.linspace(0, UNSURE, _LEVELS))).astype(int)
    return {
        "title": content.title,
        "K": np.asarray(content.K, np.float64).tolist(),
        "image_size": list(content.image_size),
        "image": _data_url("image/jpeg", content.jpeg),
        "video": _data_url("video/mp4", content.mp4),
        "animated": content.step > 0,
        "step": content.step,
        "start": content.start,
        "duration": max(ends, default=0.0) + content.step,
        "floor": None
        if content.floor is None
        else {"up": content.floor.up.tolist(), "height": float(content.floor.height)},
        "unsure": UNSURE,
        "colours": colours.tolist(),
        "ticks": list(TICKS),
        "joint_names": list(JOINTS30.joints),
        "bones": [list(limb) for limb in (*SMPL24.limbs, *_head())],
        "people": [_person(person) for person in content.people],
    }


def _data_url(kind: str, content: bytes | None) -> str | None:
    return None if content is None else f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _head() -> list[tuple[int, int]]:
    return [(JOINTS30.index("Head"), JOINTS30.index(name)) for name in ("Nose", "Head_top")]


def _person(person: PagePerson) -> dict[str, Any]:
    known = bool(np.isfinite(person.joint_sigma).all())
    return {
        "name": person.name,
        "label": person.label,
        "times": _rounded(person.times, 4),
        "joints3d": _rounded(person.joints3d, 4),
        "joint_sigma": _rounded(person.joint_sigma, 4) if known else None,
        "keypoints2d": _rounded(person.keypoints2d, 2),
        "surface_sigma": None if person.surface_sigma is None or not known else _levels(person.surface_sigma),
        "others": list(person.others),
        "interpolated": None if person.interpolated is None else person.interpolated.tolist(),
    }


def _rounded(values: Float[np.ndarray, "..."], digits: int) -> Any:
    return np.round(np.asarray(values, np.float64), digits).tolist()


def _levels(sigma: NDArray[Any]) -> str:
    """A byte for each vertex, 255 for UNSURE and more, as base64."""
    return base64.b64encode(np.rint(np.clip(sigma / UNSURE, 0, 1) * 255).astype(np.uint8).tobytes()).decode()
