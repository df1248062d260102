"""CrowdPose with NeuralAnnot's fits.

CrowdPose/images/*.jpg, CrowdPose/annotations/{crowdpose_train.json,CrowdPose_train_SMPL_NeuralAnnot.json} and,
for the validation split, crowdpose_val.json. The train file has width and height of the images exchanged.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (JSON has no types)

from collections.abc import Iterator, Mapping
from typing import Any

from dpmesh.data.annotation import Annotation
from dpmesh.data.datasets.coco import fits_of, people_of_image
from dpmesh.data.datasets.files import ReadRequest, by_image, listed
from dpmesh.io import path_inside
from dpmesh.skeletons import CROWDPOSE14

FILES = {"train": "crowdpose_train.json", "validation": "crowdpose_val.json"}
FIT_ERR = 5.0


def read(request: ReadRequest) -> Iterator[Annotation]:
    """People with at least one keypoint.

    request.fit_err: the published code keeps fits whose `fit_err` is "above" 5 and drops the others, against the
    sense of every other set. What the field means is unknown without the file; the default keeps "all".
    """
    folder = request.folder / "annotations"
    images, annotations = listed(folder / FILES[request.split], "images", "annotations")
    people_of = by_image(annotations)
    fits = fits_of(request, folder / "CrowdPose_train_SMPL_NeuralAnnot.json")
    for image in images:
        size = (int(image["width"]), int(image["height"]))
        if request.split == "train":
            size = (size[1], size[0])
        annotated = people_of.get(int(image["id"]), [])
        kept = [a for a in annotated if sum(a["keypoints"]) != 0]
        request.dropped["without keypoints"] += len(annotated) - len(kept)
        place = f"crowdpose/{image['id']}"
        file = path_inside(request.folder / "images", str(image["file_name"]), place)
        yield from people_of_image(
            request, place, file, size, kept, CROWDPOSE14, fits, lambda fit: wanted(request.fit_err, fit)
        )


def wanted(rule: str, fit: Mapping[str, Any]) -> bool:
    """Does the rule keep a fit? A fit without `fit_err` is kept."""
    error = fit.get("fit_err")
    if rule == "all" or error is None:
        return True
    return float(error) < FIT_ERR if rule == "below" else float(error) >= FIT_ERR
