"""A form's fields as the options of a prediction."""

from collections.abc import Collection
from typing import Annotated, Any

import numpy as np
from fastapi import File, Form, Request, UploadFile

from dpmesh.decode import VIDEO as VIDEO_KIND
from dpmesh.decode import other_kind
from dpmesh.errors import DPMeshError
from dpmesh.inference.option_docs import option_docs
from dpmesh.inference.options import MOST_HYPOTHESES, PredictOptions
from dpmesh.inference.output_formats import Colouring
from dpmesh.io import parse_json
from dpmesh.serve.limits import PREDICT, Limits, Refused, sentence_of

LONGEST_NAME = 200
"""Characters of a file's name that are kept."""
_HEAD = 12
_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip")
"""With which MP4 and MOV may begin, besides ftyp."""
_DOCS = {name: " ".join(text.split("\n\n")[0].split()) for name, text in option_docs(PredictOptions).items()}

Image = Annotated[UploadFile, File(description="The image's file: JPEG, PNG, WebP, TIFF, AVIF, HEIC, …")]
Video = Annotated[UploadFile, File(description="The video's file: MP4, MOV, WebM, AVI, GIF.")]
Number = Annotated[float | None, Form()]
Colour = Annotated[Colouring, Form(description="Of the overlay (image/png): per person, or by joint_sigma.")]
OnPlane = Annotated[bool, Form(description="The GLB has the image on a plane behind the people.")]


def image_options(
    request: Request,
    keypoints: Annotated[
        str | None,
        Form(
            description="Your own, as JSON, in place of the detector's: [[x, y, confidence], …] of one person, or a "
            "list of these; pixels.",
            examples=["[[[310.2, 95.1, 0.9], [318.0, 88.7, 0.8], …]]"],
        ),
    ] = None,
    boxes: Annotated[
        str | None,
        Form(
            description="Boxes of the people, as JSON: [[x1, y1, x2, y2], …]; pixels.",
            examples=["[[585, 350, 705, 521]]"],
        ),
    ] = None,
    format: Annotated[
        str | None, Form(description="Joint order of keypoints: coco, body_25, halpe26, …")
    ] = None,
    focal: Annotated[float | None, Form(description=_DOCS["focal"])] = None,
    fov: Annotated[float | None, Form(description=_DOCS["fov"])] = None,
    max_people: Annotated[int | None, Form(ge=1, description=_DOCS["max_people"])] = None,
    keep_unposed: Annotated[bool, Form(description=_DOCS["keep_unposed"])] = False,
    hypotheses: Annotated[int, Form(ge=1, le=MOST_HYPOTHESES, description=_DOCS["hypotheses"])] = 1,
) -> PredictOptions:
    """A dependency. Raises Refused."""
    limits: Limits = request.app.state.service.limits
    try:
        return PredictOptions(
            keypoints=_numbers(keypoints, "keypoints"),
            boxes=_numbers(boxes, "boxes"),
            format=format,
            focal=focal,
            fov=fov,
            max_people=people_within(limits, max_people, hypotheses),
            max_pixels=limits.max_pixels,
            keep_unposed=keep_unposed,
            hypotheses=hypotheses,
        )
    except DPMeshError as error:
        raise Refused(422, sentence_of(error)) from None


def people_within(limits: Limits, wanted: int | None, hypotheses: int = 1) -> int:
    """The people that a request may have. Raises Refused for too many."""
    most = limits.max_people
    if wanted is not None and wanted > most:
        raise Refused(422, f"max_people: this server takes at most {most} people")
    wanted = most if wanted is None else wanted
    if hypotheses > 1:
        if hypotheses > limits.max_hypotheses:
            raise Refused(422, f"hypotheses: this server makes at most {limits.max_hypotheses}")
        return min(wanted, limits.max_hypotheses // hypotheses)
    return wanted


def _numbers(text: str | None, name: str) -> np.ndarray | None:
    """Raises InputError for a text that is not JSON of numbers."""
    if text is None:
        return None
    value: Any = parse_json(text, name)
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        array = np.asarray(None)
    if array.dtype.kind not in "fiu" or array.ndim < 1:
        raise Refused(422, f"{name}: must be lists of numbers of equal lengths, as JSON")
    return array


async def only_known_fields(request: Request, known: Collection[str]) -> None:
    """Raise Refused for a field that is misspelt, or given twice; both would change results silently."""
    names = [name for name, _ in (await request.form()).multi_items()]
    for name in names:
        if name not in known:
            raise Refused(422, f"{name[:40]!r} is no field of this form; known are {', '.join(known)}")
        if names.count(name) > 1:
            raise Refused(422, f"{name}: given {names.count(name)} times")


async def content_of(file: UploadFile, limit: int, name: str) -> bytes:
    """Of an uploaded file. Raises Refused where it is empty or too large."""
    data = await file.read(limit + 1)
    if not data:
        raise Refused(422, f"{name}: the file is empty")
    if len(data) > limit:
        raise Refused(413, f"{name}: the file is larger than {limit:,} bytes")
    return data


async def refuse_no_video(file: UploadFile) -> None:
    """Raise Refused for anything but MP4, MOV, WebM, AVI and GIF: FFmpeg also opens images, and playlists, which name
    other files."""
    head = await file.read(_HEAD)
    await file.seek(0)
    if head[4:8] == b"ftyp":
        known = other_kind(head) is VIDEO_KIND  # else HEIC, AVIF or a raw photo
    else:
        known = head[4:8] in _BOXES or head.startswith((b"\x1a\x45\xdf\xa3", b"GIF8"))
        known = known or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
    if not known:
        raise Refused(422, f"video: the file is no MP4, MOV, WebM, AVI or GIF; images go to {PREDICT}")


def base_name(name: str | None) -> str:
    """The last part of a client's file name, without what cannot be printed."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(c if c.isprintable() else "_" for c in last)[:LONGEST_NAME]
