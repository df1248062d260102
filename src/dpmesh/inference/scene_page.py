"""A scene as one HTML page: the bodies, the camera and its image, in any browser."""

import numpy as np

from dpmesh.inference.mesh_files import glb_of, hypothesis_name, jpeg_of, others_of
from dpmesh.inference.scene_data import SceneData
from dpmesh.page.page import PageContent, PagePerson, html_page
from dpmesh.render.sigma import surface_sigma


def scene_page(scene: SceneData) -> str:
    """The page. Raises ConfigError for a loaded scene whose body is not known."""
    return html_page(page_content(scene), glb_of(scene, hypotheses=True))


def page_content(scene: SceneData) -> PageContent:
    """What the page shows besides the GLB."""
    people: list[PagePerson] = []
    for i, person in enumerate(scene.people):
        known = bool(np.isfinite(person.joint_sigma).all())
        surface = surface_sigma(person.vertices, person.joints3d, person.joint_sigma) if known else None
        people.append(
            PagePerson(
                name=f"person_{i:02d}",
                label=f"person {i}",
                times=np.zeros(1),
                joints3d=person.joints3d[None],
                joint_sigma=person.joint_sigma[None],
                keypoints2d=person.keypoints2d[None],
                surface_sigma=surface,
                others=[hypothesis_name(i, k) for k, _ in enumerate(others_of(person), 1)],
            )
        )
    return PageContent(
        title=scene.source.replace("\\", "/").rsplit("/", 1)[-1] or "scene",
        K=scene.K,
        image_size=scene.image_size,
        people=people,
        jpeg=jpeg_of(scene),
        floor=scene.floor,
    )
