"""A scene in the formats of `Accept`."""

import base64
import json
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from dpmesh.animation.bvh import bvh_lines
from dpmesh.errors import ConfigError
from dpmesh.inference.mesh_files import glb_of
from dpmesh.inference.output_formats import Colouring
from dpmesh.inference.result_folder import png
from dpmesh.inference.scene import Scene
from dpmesh.inference.scene_io import as_json, scene_files
from dpmesh.inference.scene_page import page_content
from dpmesh.page.page import page_data
from dpmesh.serve.limits import Refused
from dpmesh.video.exports import rest_pose

JSON, GLB, PNG, NPZ = "application/json", "model/gltf-binary", "image/png", "application/x-npz"
PAGE = "application/vnd.dpmesh.page+json"
"""All that the page at / shows and saves: the scene, page.js's data, the GLB (base64), a BVH for each person."""

Answer = Callable[[Scene, Colouring, bool], bytes]


def _file(format: str, name: str) -> Answer:
    return lambda scene, colour, plane: scene_files(scene, [format], colour, plane)[name]


def _overlay(scene: Scene, colour: Colouring, plane: bool) -> bytes:
    return png(scene.overlay(colour))


def _page(scene: Scene, colour: Colouring, plane: bool) -> bytes:
    content: dict[str, Any] = {
        "scene": as_json(scene),
        "page": page_data(page_content(scene)),
        "glb": base64.b64encode(glb_of(scene, hypotheses=True)).decode(),
        "bvh": bvh_of(scene),
    }
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


ANSWERS: dict[str, Answer] = {
    JSON: _file("json", "scene.json"),
    GLB: _file("glb", "scene.glb"),
    PNG: _overlay,
    NPZ: _file("npz", "scene.npz"),
    PAGE: _page,
}
_ALIASES = {
    "application/octet-stream": NPZ,
    "application/zip": NPZ,
    "model/gltf+json": GLB,
    "text/json": JSON,
}


def bvh_of(scene: Scene) -> list[str]:
    """A BVH of one frame for each person; none where the scene's body is not known."""
    if scene.body is None:
        return []
    texts: list[str] = []
    for person in scene:
        rest = rest_pose(scene.body, person.betas)[1]
        pose = np.concatenate([person.global_orient, person.body_pose]).reshape(1, 24, 3)
        lines = bvh_lines(rest, pose.astype(np.float64), person.transl[None].astype(np.float64), 30.0)
        texts.append("".join(f"{line}\n" for line in lines))
    return texts


def chosen_answer(accept: str | None) -> str:
    """The media type that a client prefers; JSON where it takes anything. Raises Refused (406)."""
    best, most = "", 0.0
    for part in (accept or "*/*").split(","):
        kind, *parameters = (text.strip().lower() for text in part.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            weight = float(quality)
        except ValueError:
            weight = 0.0
        kind = _ALIASES.get(kind, JSON if kind in ("*/*", "application/*", "") else kind)
        if kind == "image/*":
            kind = PNG
        if kind in ANSWERS and weight > most:
            best, most = kind, weight
    if not best:
        raise Refused(406, f"Accept: none of these is made here; there are {', '.join(ANSWERS)}")
    return best


def check_colour(colour: str, predicts_sigma: bool) -> Colouring:
    """Raises ConfigError for colours that the weights cannot give."""
    if colour == "sigma" and not predicts_sigma:
        raise ConfigError("these weights do not predict their error", where="colour")
    return cast("Colouring", colour)
