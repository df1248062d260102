"""Formats of 2D keypoint files: one table. A new format is one entry in FORMATS and its reader.

A reader splits the decoded content into images and their people. It knows joints, units and names, not the image
itself. Lookup by image name, scale and confidence are the same for all formats (files.py, scale.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from dpmesh.errors import ConfigError, InputError
from dpmesh.inference.keypoints.coco import coco, mpii, results
from dpmesh.inference.keypoints.openpose import by_image, editor, frames, is_by_image, openpose, single
from dpmesh.inference.keypoints.other_tools import (
    easy_vitpose,
    is_easy_vitpose,
    is_label_text,
    is_mediapipe,
    is_rtmlib,
    mediapipe,
    mmpose,
    ultralytics,
    yolo,
)
from dpmesh.inference.keypoints.raw import OPENPOSE_COUNTS, FileImage, Format, keys_of
from dpmesh.skeletons import (
    AICHALLENGER14,
    COCO17,
    CROWDPOSE14,
    HALPE26,
    HALPE136,
    JOINTS30,
    MEDIAPIPE33,
    MPII16,
    OPENPOSE18,
    OPENPOSE25,
    OPENPOSE25B,
    POSETRACK17,
    WHOLEBODY133,
    Skeleton,
)

JOINT_ORDERS: Mapping[str, Skeleton] = {
    "coco": COCO17, "body_25": OPENPOSE25, "body_25b": OPENPOSE25B, "openpose18": OPENPOSE18, "halpe26": HALPE26,
    "halpe136": HALPE136, "wholebody133": WHOLEBODY133, "crowdpose": CROWDPOSE14, "aichallenger": AICHALLENGER14,
    "mpii": MPII16, "posetrack": POSETRACK17, "mediapipe": MEDIAPIPE33, "joints30": JOINTS30,
}  # fmt: skip
"""Joint orders that --keypoint-format may name where the file does not determine its own."""


def _has(*keys: str) -> Callable[[Any], bool]:
    """An object with all of these keys."""
    return lambda content: isinstance(content, Mapping) and set(keys) <= keys_of(content)


def _list_with(*keys: str) -> Callable[[Any], bool]:
    """A list whose first object has all of these keys."""
    return lambda content: isinstance(content, list) and set(keys) <= keys_of(content)


def _any(*tests: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda content: any(test(content) for test in tests)


def _is_ultralytics(content: Any) -> bool:
    return _list_with("keypoints")(content) and isinstance(content[0]["keypoints"], Mapping)


def _is_mmpose(content: Any) -> bool:
    return is_rtmlib(content) or bool({"instance_info", "instances", "keypoint_scores"} & keys_of(content))


FORMATS: tuple[Format, ...] = (
    Format("yolo", "YOLO-pose labels, Ultralytics save_txt", is_label_text, yolo, (COCO17,), "always"),
    Format("coco", "COCO annotations, most labelling tools", _has("annotations"), coco),
    Format("mmpose", "MMPose demo and inferencer", _is_mmpose, mmpose),
    Format("easy_vitpose", "easy_ViTPose --save-json", is_easy_vitpose, easy_vitpose),
    Format("openpose_editor", "openpose-editor", _has("width", "height", "keypoints"), editor, (OPENPOSE18,)),
    Format("openpose", "OpenPose, Pose2Sim, sd-webui", _has("people"), openpose, OPENPOSE_COUNTS, "openpose"),
    Format(
        "comfyui", "ComfyUI DWPose and OpenPose", _list_with("people"), frames, OPENPOSE_COUNTS, "openpose"
    ),
    Format("alphapose_single", "AlphaPose sep-json", _has("bodies"), single, OPENPOSE_COUNTS),
    Format("mediapipe", "MediaPipe Pose", is_mediapipe, mediapipe, (MEDIAPIPE33,), "always"),
    Format("ultralytics", "Ultralytics to_json()", _is_ultralytics, ultralytics, fractions="maybe"),
    Format("mpii", "MPII as HRNet and MMPose keep it", _list_with("joints", "joints_vis"), mpii, (MPII16,)),
    Format(
        "results",
        "COCO results: detectron2, ViTPose, AlphaPose, OpenPifPaf",
        _any(_list_with("keypoints"), _list_with("bbox"), lambda content: content == []),
        results,
    ),
    Format("by_image", "a dictionary by image: AlphaPose, 3DCrowdNet, JOTR", is_by_image, by_image),
)
"""Tried in this order."""

_BY_NAME = {form.name: form for form in FORMATS}
FORMAT_NAMES = (*_BY_NAME, *(name for name in JOINT_ORDERS if name not in _BY_NAME))


def parse_images(content: Any, name: str | None = None) -> tuple[list[FileImage], Format]:
    """The images of a file's decoded content and its format. Raises InputError.

    name: a format of FORMATS, or a joint order of JOINT_ORDERS; None detects it by structure.
    """
    if isinstance(content, Mapping) and set(content) <= {"predictions", "visualization"} and content:  # pyright: ignore[reportUnknownArgumentType]
        content = cast("Mapping[str, Any]", content)["predictions"]  # MMPoseInferencer's return value
        if isinstance(content, list) and len(content) == 1 and isinstance(content[0], list):  # pyright: ignore[reportUnknownArgumentType]
            content = cast("list[Any]", content)[0]
    if name is not None and name not in FORMAT_NAMES:
        raise InputError(
            f"unknown format {name!r}",
            where="--keypoint-format",
            fix=f"Choose of: {', '.join(FORMAT_NAMES)}.",
        )
    if isinstance(content, Mapping) and {"boxes", "labels", "keypoints"} <= keys_of(content):
        raise InputError(
            "is torchvision's output", fix="Save each person as COCO results: image_id, keypoints."
        )
    form = _BY_NAME.get(name or "")
    if form is None or not form.matches(content):
        if form is not None and name not in JOINT_ORDERS:
            raise InputError(
                f"is not in the format {name}", fix="Leave --keypoint-format out to detect the format."
            )
        form = next((f for f in FORMATS if f.matches(content)), None)
        if form is None:
            raise InputError(
                "is no keypoint file of a known format",
                fix=f"Known: {', '.join(f.name for f in FORMATS)}.",
            )
        if name is not None:
            form = replace(form, joints=(JOINT_ORDERS[name],))
    try:
        return form.images(content, form), form
    except ConfigError as error:
        raise InputError(error.what, fix=error.fix) from None
    except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
        raise InputError(
            f"is not quite in the format {form.name} ({type(error).__name__}: {error})"
        ) from None
