"""The frames of a clip: surroundings, light and clothes stay, people and the occluder move."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from dpmesh.data.synthocc.bodies import People
from dpmesh.data.synthocc.clips import HEIGHT, PEOPLE, WIDTH, Clip
from dpmesh.data.synthocc.drawing import (
    CAMERA,
    LAMP,
    OUTFITS,
    WORLD,
    Lamp,
    Painted,
    paint,
    photograph,
    shadows,
    surroundings,
)
from dpmesh.data.synthocc.draws import Draws

_GRAIN = 1000
"""Last number of the keys of a frame's grain, plus the frame."""


def draw_clip(people: People, clip: Clip) -> Iterator[UInt8[np.ndarray, "288 384 3"]]:
    """RGB."""
    key, ground, K = (clip.number, clip.key), clip.ground, clip.K
    around = surroundings(Draws(*key, WORLD), ground, clip.focal, (HEIGHT, WIDTH))
    lamp = Lamp.draw(Draws(*key, LAMP), ground)
    outfits = [people.dress(Draws(*key, OUTFITS + 10 + person)) for person in range(PEOPLE)]
    for t in range(clip.joints.shape[1]):
        bodies = list(clip.vertices[:, t])
        meshes = [
            Painted(v, people.faces, people.rest, outfit) for v, outfit in zip(bodies, outfits, strict=True)
        ]
        foot = None
        if clip.thing is not None:
            solid, foot = clip.things[t], clip.things[t].foot
            meshes.append(
                Painted(
                    ground.place(solid.vertices), solid.faces, clip.things[0].vertices, clip.thing.pattern
                )
            )
        image = around.image.copy()
        image[around.on_ground] *= shadows(ground, around.points, bodies, foot)[:, None]
        paint(image, meshes, K, lamp, ground)
        grains = Draws(*key, _GRAIN + t)
        yield photograph(Draws(*key, CAMERA), image, (0, 0, WIDTH, HEIGHT), grains)
