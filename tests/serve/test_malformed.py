"""200 malformed requests of 20 kinds: each gets 4xx and one sentence, and the service goes on."""

import http.client
import json
import random
import socket
import struct
import zlib
from collections.abc import Callable

import pytest
from service import Reply, ask, image_form, jpeg, multipart

PREDICT = "/v1/predict"
Send = Callable[[int, random.Random], Reply]


def form(**fields: str) -> Send:
    return lambda port, rng: ask(port, "POST", PREDICT, image_form(**fields))


def one_of(name: str, *values: str) -> Send:
    return lambda port, rng: ask(port, "POST", PREDICT, image_form(**{name: rng.choice(values)}))


def image_of(make: Callable[[random.Random], bytes]) -> Send:
    return lambda port, rng: ask(port, "POST", PREDICT, image_form(make(rng)))


def body_of(change: Callable[[bytes, random.Random], bytes]) -> Send:
    def send(port: int, rng: random.Random) -> Reply:
        body, kind = multipart(image_form())
        return ask(port, "POST", PREDICT, headers={"Content-Type": kind}, body=change(body, rng))

    return send


def content_type(*kinds: str) -> Send:
    def send(port: int, rng: random.Random) -> Reply:
        return ask(port, "POST", PREDICT, image_form(), {"Content-Type": rng.choice(kinds)})

    return send


def bomb(rng: random.Random) -> bytes:
    """A PNG whose header has up to a billion pixels."""
    size = struct.pack(">IIBBBBB", rng.randint(20_000, 31_000), rng.randint(20_000, 31_000), 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def raw(port: int, text: bytes) -> Reply:
    """An answer to these bytes; its plain text as JSON would have it."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(text)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        body = answer.read()
    if "json" not in answer.headers["Content-Type"]:
        body = json.dumps({"error": body.decode()}).encode()
    return Reply(answer.status, {}, body)


def no_http(port: int, rng: random.Random) -> Reply:
    lines = (
        b"HELLO\r\n\r\n",
        b"POST /v1/predict HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
    )
    return raw(port, rng.choice(lines))


def large(port: int, rng: random.Random) -> Reply:
    """The head of a request: it is refused before its body comes."""
    length = rng.choice((40 * 2**20, 2**31, 2**63, 10**30))
    head = (
        "POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {length}\r\n\r\n"
    )
    return raw(port, head.encode())


def elsewhere(port: int, rng: random.Random) -> Reply:
    paths = (
        "/v1/predicts",
        "/v1/jobs/x",
        "/v1/jobs/x/../../etc/passwd",
        "/static/..%2f..%2fapp.py",
        "/static/x",
        "/%00",
    )
    return ask(port, "GET", rng.choice(paths))


def method(port: int, rng: random.Random) -> Reply:
    return ask(port, rng.choice(("GET", "PUT", "DELETE", "PATCH", "BREW")), PREDICT)


def without_image(port: int, rng: random.Random) -> Reply:
    parts = rng.choice(
        ([("focal", "100")], [("image", "text, no file")], [("picture", ("a.jpg", jpeg()))], [])
    )
    return ask(port, "POST", PREDICT, parts)


def twice(port: int, rng: random.Random) -> Reply:
    more = rng.choice((("image", ("b.jpg", jpeg())), ("focal", "100")))
    return ask(port, "POST", PREDICT, [*image_form(focal="100"), more])


def accept(port: int, rng: random.Random) -> Reply:
    kinds = ("text/css", "text/html", "image/jpeg", "audio/*", "application/json;q=0", "/", "image/png;q=x")
    return ask(port, "POST", PREDICT, image_form(), {"Accept": rng.choice(kinds)})


def noise(rng: random.Random) -> bytes:
    return rng.choice((b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"<svg/>")) + rng.randbytes(300)


KINDS: dict[str, Send] = {
    "content type": content_type("application/json", "text/plain", "", "multipart/form-data", "multipart/mixed"),
    "boundary": content_type("multipart/form-data; boundary=other", "multipart/form-data; boundary="),
    "cut body": body_of(lambda body, rng: body[: rng.randint(0, len(body) - 30)]),
    "body of noise": body_of(lambda body, rng: rng.randbytes(rng.randint(1, 5000))),
    "no image": without_image,
    "empty image": image_of(lambda rng: b""),
    "no image file": image_of(noise),
    "cut image": image_of(lambda rng: jpeg()[: rng.randint(10, 400)]),
    "too many pixels": image_of(bomb),
    "unknown field": lambda port, rng: ask(
        port, "POST", PREDICT, image_form(**{rng.choice(("max_peple", "Focal", "🙂", "", "weights")): "1"})
    ),
    "field given twice": twice,
    "focal": one_of("focal", "abc", "-5", "0", "nan", "inf", "1e999", "0x10", "1,5"),
    "fov": one_of("fov", "200", "-1", "0", "180", "nan", "wide"),
    "people": one_of("max_people", "0", "-1", "21", "1.5", "1000000000000", "all"),
    "boxes": one_of(
        "boxes", "1,2,3,4", "[[1,2,3]]", "[[9,9,1,1]]", "[[1,2,3,NaN]]", "{}", "[", "[[1,2],[3]]", '[["a",1,2,3]]',
        "null",        "[" * 5000, "7",
    ),
    "keypoints": one_of(
        "keypoints", "[[1,2,1]]", "[[[1,2,1]]]", "[]", "{}", '"x"', "[[[]]]", "[" * 900, "1", "true", "[[1],[2,3]]",
        json.dumps([[0, 0, 0]] * 17),
    ),
    "names": lambda port, rng: ask(
        port, "POST", PREDICT, image_form(**rng.choice(({"colour": "blue"}, {"glb_image": "maybe"}, {"hypotheses": "0"},
        {"hypotheses": "33"}, {"keep_unposed": "2"}, {"colour": "sigma"}, {"format": "coco"},
        {"format": "x", "keypoints": json.dumps([[1, 2, 1]] * 17)}))),
    ),
    "accept": accept,
    "too large": large,
    "address or method": lambda port, rng: rng.choice((elsewhere, method))(port, rng),
    "no HTTP": no_http,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_gets_one_sentence(kind: str, port: int) -> None:
    rng = random.Random(kind)
    for _ in range(10):
        reply = KINDS[kind](port, rng)
        assert 400 <= reply.status < 500, reply
        assert list(reply.json) == ["error"]
        sentence = reply.json["error"]
        assert sentence.isprintable() and sentence.endswith(".") and 10 < len(sentence) < 420, sentence
        assert "Traceback" not in sentence and ".py" not in sentence and "--" not in sentence, sentence
    assert ask(port, "POST", PREDICT, image_form()).status == 200


def test_there_are_as_many_kinds_as_it_says() -> None:
    assert len(KINDS) >= 20
