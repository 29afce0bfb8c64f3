"""The lineage pages on loopback, in a process of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..config import Settings


def serve(read: Callable[[], Settings], port: int) -> None:
    """Serve the pages of a home until the process is told to end; answers 127.0.0.1 alone.

    ``read`` returns the settings in force; it is asked again when ``llmers.toml`` has changed.
    """
    import uvicorn

    from ..orchestrate.build import Plan, build_plan
    from .app import create_app
    from .site import Site

    def renew() -> tuple[Settings, Plan]:
        settings = read()
        return settings, build_plan(settings)

    site = Site(*renew(), renew)
    site.warm()
    threading.Thread(target=site.preload, name="preload", daemon=True).start()
    uvicorn.run(
        create_app(site), host="127.0.0.1", port=port, log_level="warning", access_log=False,
        server_header=False, proxy_headers=False,
    )  # fmt: skip
