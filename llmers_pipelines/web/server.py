"""The lineage pages on loopback, in a process of their own."""

from __future__ import annotations

from ..config import Settings


def serve(settings: Settings, port: int) -> None:
    """Serve the pages of a home until the process is told to end; answers 127.0.0.1 alone."""
    import uvicorn

    from ..orchestrate.build import build_plan
    from .app import create_app
    from .site import Site

    site = Site(settings, build_plan(settings))
    site.warm()
    uvicorn.run(
        create_app(site), host="127.0.0.1", port=port, log_level="warning", access_log=False,
        server_header=False, proxy_headers=False,
    )  # fmt: skip
