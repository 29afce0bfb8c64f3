"""The pages as an ASGI application: GET alone, from this machine's own names alone, no scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import pages
from .site import Site

HERE = Path(__file__).parent
HOSTS = ("127.0.0.1", "localhost")  # another name in Host is a page elsewhere that reaches in
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# Faults that a person can mend, by name: their modules are heavy.
_NOT_FOUND = ("StepError", "HeldError", "NoChampion", "DataError", "SchemaError")
_BROKEN = ("StoreError", "BundleError")


class Headers:
    """Adds ``HEADERS`` to every answer, also to refusals."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self.app(scope, receive, with_headers)


def create_app(site: Site) -> Starlette:
    """Return the application that shows ``site``."""
    templates = environment()
    css = (HERE / "static" / "lineage.css").read_text(encoding="utf-8")

    def page(view: Any) -> Any:
        def answer(request: Request) -> Response:
            try:
                name, values = view(site, request)
            except Exception as error:  # those that a page can tell; others are raised
                status = 404 if type(error).__name__ in _NOT_FOUND else (
                    500 if type(error).__name__ in _BROKEN else 0)  # fmt: skip
                if not status:
                    raise
                return failure(status, str(error))
            return HTMLResponse(templates.get_template(name).render(**values))

        return answer

    def failure(status: int, text: str) -> Response:
        body = templates.get_template("error.html").render(status=status, text=text, crumbs=[])
        return HTMLResponse(body, status)

    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return failure(error.status_code, error.detail)

    def style(request: Request) -> Response:
        return Response(css, media_type="text/css")

    asset = "/d/{dataset}/a/{prefix}/{slug}"
    views = {
        "/": pages.home,
        "/d/{dataset}": pages.dataset,
        "/d/{dataset}/recommend": pages.recommendation,
        asset: pages.asset,
        f"{asset}/row": pages.row,
        f"{asset}/diff": pages.diff,
    }
    return Starlette(
        routes=[
            *(Route(path, page(view), methods=["GET"]) for path, view in views.items()),
            Route("/static/lineage.css", style, methods=["GET"]),
        ],
        middleware=[
            Middleware(Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS)),
        ],
        exception_handlers={HTTPException: refused},
    )


def environment() -> Environment:
    """Return the templates: everything that is put in is escaped, whatever its file is called."""
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.globals.update(pages.HELPERS)
    return found
