"""Refusals before a body is read: no token, shutting down, too large, no place; and the limits while it is read."""

import hmac
import time
from asyncio import wait_for

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dpmesh.serve.jobs import Jobs
from dpmesh.serve.limits import FORM_BYTES, PREDICT, VIDEO, Refused, too_large
from dpmesh.serve.service import Service

_VIDEO_SECONDS = 10
"""Times upload_seconds, for a video to arrive."""


class Gate:
    """A middleware: below Access, around the routes."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body: _Body | None = None
        try:
            self._admit(scope)
            if scope["method"] == "POST" and scope["path"] in (PREDICT, VIDEO):
                body = self._body(scope, receive)
        except Refused as refusal:
            answer = JSONResponse({"error": refusal.detail}, refusal.status_code, refusal.headers)
            await answer(scope, receive, send)
            return
        try:
            await self.app(scope, receive if body is None else body.receive, send)
        finally:
            if body is not None:
                body.end()

    def _admit(self, scope: Scope) -> None:
        path = scope["path"]
        if self.service.draining and scope["method"] == "POST":
            raise Refused(503, "The server is shutting down; try another one", 5)
        if self.service.token and (path.startswith("/v1/") or path == "/metrics"):
            given = Headers(scope=scope).get("authorization", "")
            kind, _, token = given.partition(" ")
            right = hmac.compare_digest(token.strip().encode(), self.service.token.encode())
            if kind.lower() != "bearer" or not right:
                what = "is not the right one" if given else "is missing"
                raise Refused(401, f"Authorization: the bearer token {what}", WWW_Authenticate="Bearer")

    def _body(self, scope: Scope, receive: Receive) -> "_Body":
        limits, headers = self.service.limits, Headers(scope=scope)
        if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise Refused(
                415, "Content-Type: the request must be multipart/form-data, with the file as a part"
            )
        video = scope["path"] == VIDEO
        most = (limits.max_video_bytes if video else limits.max_bytes) + FORM_BYTES
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise too_large(most)
        receiver = self.service.jobs if video else self.service
        receiver.refuse_if_full()
        seconds = limits.upload_seconds * (_VIDEO_SECONDS if video else 1)
        return _Body(receiver, receive, most, seconds)


class _Body:
    """A body that arrives: counted in bytes and seconds, and among the uploads until it is complete."""

    def __init__(self, receiver: Service | Jobs, receive: Receive, most: int, seconds: float) -> None:
        self._receiver, self._receive, self._most, self._seconds = receiver, receive, most, seconds
        self._bytes, self._end = 0, time.monotonic() + seconds
        self._arriving = True
        receiver.uploading += 1

    async def receive(self) -> Message:
        """Raises Refused: 413, 408."""
        if not self._arriving:
            return await self._receive()
        try:
            message = await wait_for(self._receive(), max(0.0, self._end - time.monotonic()))
        except TimeoutError:
            raise Refused(408, f"The request did not arrive within {self._seconds:g} seconds") from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._most:
            raise too_large(self._most)
        if not message.get("more_body", False):
            self.end()
        return message

    def end(self) -> None:
        if self._arriving:
            self._arriving = False
            self._receiver.uploading -= 1
