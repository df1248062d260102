"""Around every request: its id, one line of log, the metrics, and an answer where the service itself fails."""

import logging
import re
import time
import uuid
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dpmesh.errors import printable
from dpmesh.serve.limits import PREDICT, VIDEO
from dpmesh.serve.service import Service

log = logging.getLogger("dpmesh.serve")

REQUEST_ID: ContextVar[str] = ContextVar("request id", default="-")
_ID = re.compile(r"[\w.-]{1,64}")
_GONE = 499
"""Status in log and metrics of a request whose client left: none was sent."""
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Access:
    """The outermost middleware. A client's X-Request-ID is kept where it is short and plain."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if _ID.fullmatch(given) else uuid.uuid4().hex
        token = REQUEST_ID.set(name)
        status, start = 0, time.monotonic()

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = name
                for header, value in _ALWAYS.items():
                    headers.setdefault(header, value)
            await send(message)

        self.service.in_flight += 1
        try:
            await self.app(scope, receive, marked)
        except Exception:  # the last place that can answer
            log.exception("%s %s failed", scope["method"], printable(scope["path"])[:200])
            if not status:
                await JSONResponse({"error": failed_sentence()}, 500)(scope, receive, marked)
        finally:
            self.service.in_flight -= 1
            self._note(scope, status or _GONE, time.monotonic() - start)
            REQUEST_ID.reset(token)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        here = scope["path"] if scope["path"] in (PREDICT, VIDEO) else "other"  # refused before it was routed
        route = getattr(scope.get("route"), "path", here)
        self.service.metrics.request_done(scope["method"], route, status, seconds)
        client = (scope.get("client") or ("-",))[0]
        path = printable(scope["path"])[:200]
        quiet = route in ("/healthz", "/readyz", "/metrics")
        level = logging.DEBUG if quiet else logging.INFO
        log.log(level, "%s %s %s %d %.3f s", client, scope["method"], path, status, seconds)


def failed_sentence() -> str:
    return f"The service failed; its log has the reason under {REQUEST_ID.get()}."


class WithRequestId(logging.Filter):
    """Gives each record `request`: the id of the request that it belongs to."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request = REQUEST_ID.get()
        return True
