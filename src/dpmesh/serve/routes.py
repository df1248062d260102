"""The service's addresses below /v1, and those for its keeper."""

import asyncio
import shutil
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import FileResponse, JSONResponse, Response

from dpmesh.inference.options import PredictOptions
from dpmesh.serve import examples
from dpmesh.serve.answers import ANSWERS, check_colour, chosen_answer
from dpmesh.serve.forms import (
    Colour,
    Image,
    OnPlane,
    Video,
    base_name,
    content_of,
    image_options,
    only_known_fields,
    people_within,
    refuse_no_video,
)
from dpmesh.serve.limits import PREDICT, Refused, no_room
from dpmesh.serve.limits import VIDEO as VIDEO_PATH
from dpmesh.serve.metrics import MEDIA_TYPE
from dpmesh.serve.service import Service

router = APIRouter()
PRIVATE = {"Cache-Control": "no-store"}
_IMAGE_FIELDS = (
    "image", "keypoints", "boxes", "format", "focal", "fov", "max_people", "keep_unposed", "hypotheses", "colour",
    "glb_image",
)  # fmt: skip
_VIDEO_FIELDS = ("video", "start", "end", "every", "static_camera", "max_people", "focal", "fov")


def service_of(request: Request) -> Service:
    """A dependency: the service that this application is of."""
    service: Service = request.app.state.service
    return service


Own = Annotated[Service, Depends(service_of)]
Seconds = Annotated[float, Form(ge=0, description="Seconds.")]


@router.post(
    PREDICT,
    response_class=JSONResponse,
    responses={
        200: examples.scene_answers(),
        **examples.errors(400, 401, 406, 408, 413, 415, 422, 429, 503),
    },
)
async def predict(
    request: Request,
    service: Own,
    image: Image,
    options: Annotated[PredictOptions, Depends(image_options)],
    colour: Colour = "person",
    glb_image: OnPlane = False,
) -> Response:
    """The people in an image: the schema of scene.json, or what Accept asks for.

    `model/gltf-binary` is the GLB, `image/png` the overlay, `application/x-npz` scene.npz.
    """
    await only_known_fields(request, _IMAGE_FIELDS)
    kind = chosen_answer(request.headers.get("accept"))
    chosen = check_colour(colour, service.predictor.predicts_sigma)
    data = await content_of(image, service.limits.max_bytes, "image")
    await request.close()  # the form's temporary file
    with service.place():
        end = time.monotonic() + service.limits.timeout
        work = service.batcher.submit(data, base_name(image.filename), options)
        scene = await service.result(request, work, end)
        written = service.batcher.help(lambda: ANSWERS[kind](scene, chosen, glb_image))
        content = await service.result(request, written, end)
    return Response(content, media_type=kind, headers=PRIVATE)


@router.post(
    VIDEO_PATH,
    status_code=202,
    response_class=JSONResponse,
    responses={
        202: examples.answer("The job, accepted", examples.JOB),
        **examples.errors(400, 401, 413, 422, 429, 501),
    },
)
async def video(
    request: Request,
    service: Own,
    video: Video,
    start: Seconds = 0.0,
    end: Annotated[float | None, Form(gt=0, description="Until this second.")] = None,
    every: Annotated[int, Form(ge=1, description="Only each N-th frame.")] = 1,
    static_camera: Annotated[bool, Form(description="The camera does not move.")] = False,
    max_people: Annotated[int | None, Form(ge=1, description="Most people per frame.")] = None,
    focal: Annotated[float | None, Form(gt=0, description="Focal length in pixels.")] = None,
    fov: Annotated[float | None, Form(gt=0, lt=180, description="Horizontal field of view, degrees.")] = None,
) -> Response:
    """Accept a video; its job is predicted later, and its results are kept for some minutes."""
    await only_known_fields(request, _VIDEO_FIELDS)
    if focal is not None and fov is not None:
        raise Refused(422, "focal: both a focal length and a field of view; give one of them")
    if not video.size:
        raise Refused(422, "video: the file is empty")
    if video.size > service.limits.max_video_bytes:
        raise Refused(413, f"video: the file is larger than {service.limits.max_video_bytes:,} bytes")
    await refuse_no_video(video)
    options: dict[str, Any] = {
        "start": start,
        "end": end,
        "every": every,
        "static_camera": static_camera,
        "max_people": people_within(service.limits, max_people),
        "focal": focal,
        "fov": fov,
    }
    job = service.jobs.new(base_name(video.filename), {k: v for k, v in options.items() if v is not None})
    try:
        with job.video.open("wb") as file:
            await asyncio.to_thread(shutil.copyfileobj, video.file, file, 2**20)
        service.jobs.start(job)
    except BaseException as error:
        service.jobs.remove(job)
        if isinstance(error, OSError):
            raise Refused(507, no_room(error)) from None
        raise
    return JSONResponse(job.as_json(), 202, {"Location": f"/v1/jobs/{job.id}", **PRIVATE})


@router.get(
    "/v1/jobs/{name}",
    response_class=JSONResponse,
    responses={200: examples.answer("The job", examples.DONE), **examples.errors(401, 404)},
)
async def job(service: Own, name: str) -> Response:
    """queued, running, done, failed. `frames` of `total` are done; `results` are links."""
    job = service.jobs.get(name)
    job.fetched = job.fetched or job.state == "failed"
    return JSONResponse(job.as_json(), headers=PRIVATE)


@router.get("/v1/jobs/{name}/{file}", response_class=FileResponse, responses=examples.errors(401, 404))
async def result(service: Own, name: str, file: str) -> Response:
    """One file of a job's results."""
    job = service.jobs.get(name)
    if file not in job.results:
        raise Refused(404, "There is no such file among the job's results")
    job.fetched = True
    return FileResponse(
        job.results[file], media_type="application/octet-stream", filename=file, headers=PRIVATE
    )


@router.delete(
    "/v1/jobs/{name}", status_code=204, response_class=Response, responses=examples.errors(401, 404)
)
async def delete(service: Own, name: str) -> Response:
    """End the job, and remove its results."""
    service.jobs.remove(service.jobs.get(name))
    return Response(status_code=204)


@router.get("/healthz", response_class=JSONResponse)
async def healthz(service: Own) -> Response:
    """200 while the process works; else restart it."""
    return JSONResponse({"ok": service.healthy}, 200 if service.healthy else 500)


@router.get("/readyz", response_class=JSONResponse)
async def readyz(service: Own) -> Response:
    """200 while new requests are taken; 503 while it shuts down."""
    ready = service.healthy and not service.draining
    return JSONResponse({"ready": ready}, 200 if ready else 503)


@router.get("/metrics", response_class=Response)
async def metrics(service: Own) -> Response:
    """For Prometheus."""
    return Response(service.metrics.text(), media_type=MEDIA_TYPE)
