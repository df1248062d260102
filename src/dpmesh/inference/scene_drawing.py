"""A scene's overlay and side view."""

import cv2
import numpy as np
import torch
from jaxtyping import UInt8

from dpmesh.errors import ConfigError
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.inference.output_formats import Colouring
from dpmesh.inference.scene_data import Person, SceneData, image_of
from dpmesh.render.overlay import LONGEST, TRANSLUCENT, Layer, draw_lineup, draw_overlay, palette
from dpmesh.render.sigma import add_legend, sigma_colours, surface_sigma

_SIGMA_OPACITY = 0.85
"""Of bodies coloured by sigma: their colours are compared with the legend's."""


def overlay_image(
    scene: SceneData, colour: Colouring = "person", longest: int = LONGEST
) -> UInt8[np.ndarray, "h w 3"]:
    """As Scene.overlay. longest: its longest side, pixels; an image is never enlarged."""
    opacity = TRANSLUCENT if colour == "person" else _SIGMA_OPACITY
    drawn = draw_overlay(
        image_of(scene), _layers(scene, colour), scene.faces, scene.K, opacity, _others(scene), longest
    )
    return drawn if colour == "person" else add_legend(drawn)


def thumbnail(scene: SceneData, longest: int) -> bytes:
    """The overlay as a JPEG file, at most `longest` pixels long."""
    quality = (cv2.IMWRITE_JPEG_QUALITY, 85)
    made, file = cv2.imencode(".jpg", overlay_image(scene, longest=longest)[..., ::-1], quality)
    assert made
    return file.tobytes()


def side_image(scene: SceneData, colour: Colouring = "person") -> UInt8[np.ndarray, "h w 3"]:
    """As Scene.side_view."""
    names = [f"person_{i:02d}" for i in range(len(scene.people))]
    drawn = draw_lineup(_layers(scene, colour), scene.faces, names)
    return drawn if colour == "person" else add_legend(drawn)


def _layers(scene: SceneData, colour: Colouring) -> list[Layer]:
    if colour == "sigma":
        return [_by_sigma(person) for person in scene.people]
    colours = palette(len(scene.people))
    return [Layer(person.vertices, own) for person, own in zip(scene.people, colours, strict=True)]


@torch.no_grad()
def _others(scene: SceneData) -> list[list[Layer]]:
    """The second, third, ... hypotheses of all people; none for a scene that does not know its body."""
    several = [person.hypotheses for person in scene.people]
    if scene.body is None or not any(several):
        return []
    colours = palette(len(several))
    groups = list[list[Layer]]()
    for k in range(1, max(len(one) for one in several if one is not None)):
        group = list[Layer]()
        for one, colour in zip(several, colours, strict=True):
            if one is None or k >= len(one):
                continue
            vectors = np.concatenate([one.global_orient[k], one.body_pose[k]]).reshape(1, 24, 3)
            betas, transl, turns = (
                torch.from_numpy(array).to(scene.body.faces.device, torch.float32)
                for array in (one.betas[k : k + 1], one.transl[k : k + 1], vectors)
            )
            posed = scene.body(betas, rotation_matrix(turns)).vertices[0] + transl
            group.append(Layer(posed.cpu().numpy(), colour))
        groups.append(group)
    return groups


def _by_sigma(person: Person) -> Layer:
    """The surface coloured by the uncertainty of the joints near it; raises ConfigError where that is not known."""
    if not np.isfinite(person.joint_sigma).all():
        raise ConfigError(
            "this prediction has no joint_sigma",
            where="colour",
            fix="Colour by person, or use weights that predict it, without refining.",
        )
    sigma = surface_sigma(person.vertices, person.joints3d, person.joint_sigma)
    return Layer(person.vertices, (0.85, 0.85, 0.85), sigma_colours(sigma))
