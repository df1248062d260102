"""The application: routes, the page, and every error as {"error": one sentence}."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from dpmesh.errors import DPMeshError, OutputError
from dpmesh.serve import pages, routes
from dpmesh.serve.access import Access, failed_sentence
from dpmesh.serve.gate import Gate
from dpmesh.serve.limits import no_room, one_sentence, sentence_of
from dpmesh.serve.service import ClientGone, Service

_ABOUT = """Human bodies (SMPL's parameters, meshes) from images and videos, also where people are hidden in part."""


def create_app(service: Service) -> ASGIApp:
    """The service as an ASGI application; the service is closed when it shuts down."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        own = version("dpmesh")
    except PackageNotFoundError:
        own = "0"

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        service.close()

    # The pages of docs_url would load scripts from elsewhere.
    app = FastAPI(
        title="dpmesh", version=own, description=_ABOUT, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.state.service = service
    app.include_router(routes.router)
    app.include_router(pages.router)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(DPMeshError, _unusable)
    app.add_exception_handler(ClientGone, _gone)
    app.add_exception_handler(Exception, _failed)
    return Access(Gate(app, service), service)


def _error(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, headers)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, OSError):  # an upload that could not be stored; FastAPI blames the form
        return _error(507, no_room(error.__cause__))
    text = error.detail
    if text == "Not Found":
        text = "There is nothing at this address; /openapi.json lists what there is"
    elif text == "Method Not Allowed":
        allowed = (error.headers or {}).get("Allow", "")
        text = f"{request.method} is not allowed here" + (f", only {allowed}" if allowed else "")
    return _error(error.status_code, one_sentence(text), dict(error.headers or {}))


async def _invalid(_: Request, error: Exception) -> Response:
    """The first fault of the form, as one sentence; what was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    what = "is missing" if first["type"] == "missing" else first["msg"][:1].lower() + first["msg"][1:]
    return _error(422, one_sentence(f"{'.'.join(place) or 'form'}: {what}"))


async def _unusable(_: Request, error: Exception) -> Response:
    assert isinstance(error, DPMeshError)
    return _error(507 if isinstance(error, OutputError) else 422, sentence_of(error))


async def _failed(_: Request, __: Exception) -> Response:
    return _error(500, failed_sentence())  # the exception goes on to Access, which logs it


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # the client has gone
