"""What the service answers is what the predictor gives, in every format."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from service import ask, image_form, jpeg

from dpmesh.inference.predictor import Predictor
from dpmesh.inference.scene_io import as_json

PREDICT = "/v1/predict"


def scene_json(scene: object) -> dict:
    return json.loads(json.dumps(as_json(scene)))  # type: ignore[arg-type]


def test_json_is_the_scene(port: int, predictor: Predictor) -> None:
    data = jpeg()
    reply = ask(port, "POST", PREDICT, image_form(data))
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json == scene_json(predictor(data)) | {"source": "a.jpg"}
    assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"max_people": "1"}, {"max_people": 1}),
        ({"fov": "50"}, {"fov": 50.0}),
        ({"focal": "200"}, {"focal": 200.0}),
        ({"boxes": "[[10, 10, 60, 110]]"}, {"boxes": np.array([[10, 10, 60, 110]])}),
    ],
)
def test_fields_are_options(port: int, predictor: Predictor, fields: dict, options: dict) -> None:
    data = jpeg()
    got = ask(port, "POST", PREDICT, image_form(data, **fields)).json
    assert got == scene_json(predictor(data, **options)) | {"source": "a.jpg"}


def test_keypoints_of_the_client(port: int, predictor: Predictor) -> None:
    data, points = jpeg(), np.random.default_rng(1).uniform(20, 100, (17, 3)).round(1)
    points[:, 2] = 0.9
    got = ask(port, "POST", PREDICT, image_form(data, keypoints=json.dumps(points.tolist()))).json
    assert got == scene_json(predictor(data, keypoints=points)) | {"source": "a.jpg"}
    assert np.allclose(got["people"][0]["keypoints2d"], points, atol=1e-4)


def test_other_formats(port: int, predictor: Predictor) -> None:
    data = jpeg()
    scene = predictor(data)

    def get(kind: str, **fields: str) -> bytes:
        reply = ask(port, "POST", PREDICT, image_form(data, **fields), {"Accept": kind})
        assert reply.status == 200, reply.body
        return reply.body

    assert np.array_equal(np.asarray(Image.open(io.BytesIO(get("image/png")))), scene.overlay())
    with np.load(io.BytesIO(get("application/x-npz"))) as arrays:
        assert np.allclose(arrays["vertices"], scene.stacked("vertices"), atol=1e-5)
    plain, with_image = get("model/gltf-binary"), get("model/gltf-binary", glb_image="true")
    assert plain[:4] == with_image[:4] == b"glTF"
    assert len(with_image) > len(plain) + len(data) / 2
    page = json.loads(get("application/vnd.dpmesh.page+json"))
    assert page["scene"] == scene_json(scene) | {"source": "a.jpg"}
    assert [text.startswith("HIERARCHY") for text in page["bvh"]] == [True, True]
    assert len(page["page"]["people"]) == 2


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("text/html, image/png;q=0.9, */*;q=0.1", "image/png"),
        ("image/png;q=0.2, model/gltf-binary;q=0.7", "model/gltf-binary"),
        ("image/png, model/gltf-binary", "image/png"),
        ("image/*", "image/png"),
    ],
)
def test_accept(port: int, accept: str, kind: str) -> None:
    reply = ask(port, "POST", PREDICT, image_form(), {"Accept": accept})
    assert reply.headers["content-type"] == kind


def test_nobody_is_an_empty_scene(port: int) -> None:
    assert ask(port, "POST", PREDICT, image_form(jpeg(8, 8))).json["people"] == []


def test_request_ids(port: int) -> None:
    given = ask(port, "POST", PREDICT, image_form(), {"X-Request-ID": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 65, "\t"):
        assert len(ask(port, "GET", "/healthz", headers={"X-Request-ID": bad}).headers["x-request-id"]) == 32


def test_for_the_keeper(port: int) -> None:
    ask(port, "POST", PREDICT, image_form())
    assert ask(port, "GET", "/healthz").json == {"ok": True}
    assert ask(port, "GET", "/readyz").json == {"ready": True}
    text = ask(port, "GET", "/metrics").body.decode()
    assert 'dpmesh_requests_total{method="POST",route="/v1/predict",status="200"} 1.0' in text
    assert "dpmesh_people_total 2.0" in text


def test_openapi_has_examples(port: int) -> None:
    page = ask(port, "GET", "/openapi.json").json
    post = page["paths"][PREDICT]["post"]
    answers = post["responses"]["200"]["content"]
    assert {"application/json", "model/gltf-binary", "image/png", "application/x-npz"} <= set(answers)
    assert answers["application/json"]["example"]["schema"] == "dpmesh.scene/1"
    assert {"413", "415", "422", "429"} <= set(post["responses"])
    form = page["components"]["schemas"]["Body_predict_v1_predict_post"]
    assert form["required"] == ["image"]
    assert all("description" in field for field in form["properties"].values())
