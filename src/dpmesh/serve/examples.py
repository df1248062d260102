"""What the OpenAPI page shows of answers: one scene, cut short, and every refusal."""

from typing import Any

from dpmesh.serve.answers import GLB, JSON, NPZ, PAGE, PNG

SCENE: dict[str, Any] = {
    "schema": "dpmesh.scene/1",
    "source": "park.jpg",
    "source_sha256": "8c1f…",
    "options": {"refine": True, "max_people": 20},
    "image_size": [576, 1024],
    "K": [[1175.0, 0.0, 512.0], [0.0, 1175.0, 288.0], [0.0, 0.0, 1.0]],
    "focal_source": "diagonal",
    "weights": {"name": "embedded"},
    "fallbacks": {},
    "notes": [],
    "joint_names": ["Pelvis", "L_Hip", "…"],
    "people": [
        {
            "score": 0.97,
            "box": [585.0, 350.0, 705.0, 521.0],
            "keypoints2d": [[640.1, 366.2, 0.9]],
            "global_orient": [3.05, 0.02, 0.11],
            "body_pose": [0.1, 0.02],
            "betas": [0.3],
            "transl": [0.95, 1.02, 8.9],
            "joints3d": [[0.95, 1.1, 8.96]],
            "joints2d": [[636.0, 432.0]],
            "joint_sigma": [0.0],
        }
    ],
}
JOB: dict[str, Any] = {"id": "wq3…", "state": "running", "source": "clip.mp4", "frames": 40, "total": 230}
DONE: dict[str, Any] = {
    **JOB,
    "state": "done",
    "frames": 230,
    "results": {"scene.glb": "/v1/jobs/wq3…/scene.glb", "tracks.npz": "/v1/jobs/wq3…/tracks.npz"},
}
_ERRORS = {
    400: "There was an error parsing the body.",
    401: "Authorization: the bearer token is missing.",
    404: "There is no such job: it was removed, or never was.",
    406: "Accept: none of these is made here; there are application/json, …",
    408: "The request did not arrive within 30 seconds.",
    413: "The request is larger than 34,603,008 bytes.",
    415: "Content-Type: the request must be multipart/form-data, with the file as a part.",
    422: "Image: not an image file.",
    429: "All places are taken; try again later.",
    501: "This server takes no videos.",
    503: "The server is shutting down; try another one.",
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "One sentence."}},
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` of these refusals."""
    return {
        status: {
            "description": _ERRORS[status],
            "content": {JSON: {"schema": _ERROR, "example": {"error": _ERRORS[status]}}},
        }
        for status in statuses
    }


def answer(description: str, example: Any) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": {"type": "object"}, "example": example}}}


def scene_answers() -> dict[str, Any]:
    scene = answer("The scene, in the format of Accept", SCENE)
    return {**scene, "content": {**scene["content"], GLB: _BINARY, PNG: _BINARY, NPZ: _BINARY, PAGE: {}}}
