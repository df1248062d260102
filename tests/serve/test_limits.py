"""Limits of bytes, pixels, people and seconds; the bounded queue; the token."""

import dataclasses
import errno
import http.client
import os
import socket

import pytest
from service import (
    Background,
    HeldModel,
    Reply,
    ask,
    fake_predictor,
    image_form,
    jpeg,
    multipart,
    running,
    until,
)

from dpmesh.errors import ConfigError
from dpmesh.serve.limits import Limits
from dpmesh.serve.service import Service

PREDICT = "/v1/predict"


def held_service(**limits: float) -> tuple[Service, HeldModel]:
    predictor = fake_predictor()
    model = predictor.model
    assert isinstance(model, HeldModel)
    model.free.clear()
    return Service(predictor, Limits(**limits)), model  # type: ignore[arg-type]


def test_the_queue_is_bounded_and_says_when_to_try_again() -> None:
    service, model = held_service(queue=3)
    with running(service) as (port, _):
        accepted = [Background(port, image_form(jpeg(seed=i))) for i in range(3)]
        until(lambda: service.waiting == 3)
        for _ in range(5):
            refused = ask(port, "POST", PREDICT, image_form())
            assert refused.status == 429
            assert 1 <= int(refused.headers["retry-after"]) <= 60
        model.free.set()
        assert [one.reply.status for one in accepted] == [200] * 3
        assert ask(port, "POST", PREDICT, image_form()).status == 200
    assert service.waiting == service.uploading == service.in_flight == 0


def test_more_uploads_than_could_get_a_place_are_refused() -> None:
    service, model = held_service(queue=1)
    model.free.set()
    body, kind = multipart(image_form())
    head = (
        f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with running(service) as (port, _):
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
        for one in slow:
            one.sendall(head.encode() + body[:50])
        until(lambda: service.uploading == 4)
        assert ask(port, "POST", PREDICT, image_form()).status == 429
        slow[0].sendall(body[50:])
        assert slow[0].recv(65536).startswith(b"HTTP/1.1 200")
        for one in slow:
            one.close()
        until(lambda: service.uploading == 0)
        assert ask(port, "POST", PREDICT, image_form()).status == 200


def test_a_flood() -> None:
    service = Service(fake_predictor(), Limits(queue=2))
    with running(service) as (port, _):
        flood = [Background(port, image_form(jpeg(seed=i % 3))) for i in range(80)]
        replies = [one.reply for one in flood]
        assert {reply.status for reply in replies} == {200, 429}
        assert all(int(reply.headers["retry-after"]) > 0 for reply in replies if reply.status == 429)
        assert all(len(reply.json["people"]) == 2 for reply in replies if reply.status == 200)
        assert ask(port, "POST", PREDICT, image_form()).status == 200
    assert service.waiting == service.uploading == service.in_flight == 0


def test_one_place_and_two_uploads_at_once() -> None:
    service, model = held_service(queue=1)
    body, kind = multipart(image_form())
    head = (
        f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with running(service) as (port, _):
        first, second = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
        with first, second:
            for one in (first, second):
                one.sendall(head.encode() + body[:50])
            until(lambda: service.uploading == 2)  # both were let in
            first.sendall(body[50:])
            until(lambda: service.waiting == 1)
            second.sendall(body[50:])
            assert second.recv(65536).startswith(b"HTTP/1.1 429")
            model.free.set()
            assert first.recv(65536).startswith(b"HTTP/1.1 200")


def test_bytes_are_counted_while_they_come() -> None:
    service = Service(fake_predictor(), Limits(max_bytes=2000))
    with running(service) as (port, _):
        reply = ask(port, "POST", PREDICT, image_form(b"x" * 2001))
        assert (reply.status, reply.json["error"]) == (413, "image: the file is larger than 2,000 bytes.")

        def endless():
            yield multipart(image_form(b"x" * 100))[0][:-20]
            for _ in range(200):
                yield b"x" * 65536

        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        head = {"Content-Type": "multipart/form-data; boundary=b0undary", "Transfer-Encoding": "chunked"}
        connection.request("POST", PREDICT, endless(), head, encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()
        assert ask(port, "GET", "/healthz").status == 200
    assert service.uploading == 0


def test_a_body_that_does_not_come() -> None:
    service = Service(fake_predictor(), Limits(upload_seconds=0.2))
    with running(service) as (port, _), socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
        slow.sendall(
            f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            "Content-Length: 100\r\n\r\n--b".encode()
        )
        assert b"408" in slow.recv(65536).split(b"\r\n")[0]
        until(lambda: service.uploading == 0)


def test_pixels_and_people() -> None:
    service = Service(fake_predictor(), Limits(max_pixels=10_000, max_people=1, max_hypotheses=4))

    def reply(data: bytes, **fields: str) -> Reply:
        return ask(port, "POST", PREDICT, image_form(data, **fields))

    with running(service) as (port, _):
        assert reply(jpeg(120, 160)).json["error"].startswith("image: the image is 160×120 pixels")
        small = jpeg(90, 90)
        assert len(reply(small).json["people"]) == 1
        refused = reply(small, max_people="2")
        assert (refused.status, refused.json["error"]) == (
            422,
            "max_people: this server takes at most 1 people.",
        )
        assert reply(small, hypotheses="5").status == 422


def test_seconds() -> None:
    service, model = held_service(timeout=0.2)
    with running(service) as (port, _):
        reply = ask(port, "POST", PREDICT, image_form())
        assert (reply.status, service.waiting) == (503, 0)
        assert int(reply.headers["retry-after"]) > 0
        service.limits = dataclasses.replace(service.limits, timeout=30.0)
        model.free.set()
        assert ask(port, "POST", PREDICT, image_form()).status == 200


def test_a_model_that_hangs_is_not_healthy() -> None:
    service, model = held_service(timeout=0.05)
    with running(service) as (port, _):
        assert ask(port, "GET", "/healthz").status == 200
        assert ask(port, "POST", PREDICT, image_form()).status == 503
        until(lambda: ask(port, "GET", "/healthz").status == 500)
        assert ask(port, "GET", "/readyz").status == 503
        model.free.set()
        until(lambda: ask(port, "GET", "/healthz").status == 200)


def test_the_token() -> None:
    with running(Service(fake_predictor(), token="sesame🗝")) as (port, _):
        for headers in (
            {},
            {"Authorization": "Bearer no"},
            {"Authorization": "Basic sesame"},
            {"Authorization": "x"},
        ):
            for path in (PREDICT, "/v1/jobs/x", "/metrics"):
                refused = ask(port, "GET", path, headers=headers)
                assert refused.status == 401
                assert refused.headers["www-authenticate"] == "Bearer"
        for path in ("/", "/healthz", "/readyz", "/openapi.json"):
            assert ask(port, "GET", path).status == 200
    with running(Service(fake_predictor(), token="sesame")) as (port, _):
        right = {"Authorization": "Bearer sesame"}
        assert ask(port, "POST", PREDICT, image_form(), right).status == 200
        assert ask(port, "GET", "/metrics", headers=right).status == 200


def test_limits_are_positive() -> None:
    for name in (field.name for field in dataclasses.fields(Limits)):
        whole = isinstance(getattr(Limits(), name), int)
        for value in (0, -1) if whole else (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(ConfigError):
                Limits(**{name: value})


class Leaky(HeldModel):
    def forward(self, *_: object, **__: object):  # type: ignore[override]
        raise RuntimeError("secret/path.py is broken")


def test_a_fault_of_the_service_shows_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    predictor = fake_predictor()
    predictor.model = Leaky()
    with running(Service(predictor)) as (port, _):
        reply = ask(port, "POST", PREDICT, image_form(), {"X-Request-ID": "r7"})
        assert reply.status == 500
        assert reply.json == {"error": "The service failed; its log has the reason under r7."}
        assert ask(port, "GET", "/healthz").status == 200
    assert any("secret" in str(record.exc_info) for record in caplog.records)


@pytest.mark.parametrize("path", [PREDICT, "/v1/video"])
def test_a_full_disk_is_not_the_clients_fault(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x")

    with running(Service(fake_predictor(), videos=lambda *_: [])) as (port, _):
        with monkeypatch.context() as patch:
            patch.setattr("starlette.datastructures.UploadFile.write", full)
            name = "image" if path == PREDICT else "video"
            reply = ask(port, "POST", path, [(name, ("a.jpg", jpeg()))])
            assert (reply.status, reply.json["error"]) == (
                507,
                "The server cannot store what was sent (No space left on device).",
            )
        assert ask(port, "POST", PREDICT, image_form()).status == 200
