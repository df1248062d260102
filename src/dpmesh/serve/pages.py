"""The page at /, its parts, and the viewer inside it: files of the package, under a strict Content-Security-Policy."""

from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

from dpmesh.assets import shipped
from dpmesh.serve.limits import Refused

router = APIRouter(include_in_schema=False)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self' blob:; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors {}"
)
"""Nothing inline, nothing from elsewhere. three.js makes blob: URLs of textures."""
_PARTS = {
    "index.css": (files("dpmesh.serve") / "web/index.css", "text/css"),
    "index.js": (files("dpmesh.serve") / "web/index.js", "text/javascript"),
    "viewer.js": (files("dpmesh.serve") / "web/viewer.js", "text/javascript"),
    "page.css": (files("dpmesh.page") / "page.css", "text/css"),
    "pointer.js": (files("dpmesh.page") / "pointer.js", "text/javascript"),
    "page.js": (files("dpmesh.page") / "page.js", "text/javascript"),
    "three.js": (shipped("page/three.js"), "text/javascript"),
}
_HOUR = {"Cache-Control": "private, max-age=3600"}
_INLINE = (
    ("<style>/*CSS*/</style>", '<link rel="stylesheet" href="/static/page.css">'),
    ("/*DATA*/", ""),
    ("/*GLB*/", ""),
    ("<script>/*THREE*/</script>", '<script src="/static/three.js"></script>'),
    ("<script>/*JS*/</script>", '<script src="/static/viewer.js"></script>'),
)
"""What page.html has inside it, and what the viewer takes from the server instead."""


@router.get("/")
async def index() -> Response:
    text = (files("dpmesh.serve") / "web/index.html").read_text("utf-8")
    return _page(text, "'none'")


@router.get("/viewer")
async def viewer() -> Response:
    """The page of a result without its numbers; viewer.js takes them from the page that it is in."""
    text = (files("dpmesh.page") / "page.html").read_text("utf-8")
    for inside, outside in _INLINE:
        before, after = text.split(inside, 1)
        text = before + outside + after
    return _page(text, "'self'")


@router.get("/static/{name}")
async def static(name: str) -> Response:
    if name not in _PARTS:
        raise Refused(404, "There is no such part of the page")
    return Response(_part(name), media_type=_PARTS[name][1], headers=_HOUR)


@cache
def _part(name: str) -> bytes:
    return _PARTS[name][0].read_bytes()


def _page(text: str, ancestors: str) -> Response:
    headers = {"Content-Security-Policy": _POLICY.format(ancestors), "Cache-Control": "no-cache"}
    return Response(text, media_type="text/html", headers=headers)
