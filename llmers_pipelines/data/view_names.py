"""The names of the views of a data set, for whoever plans without reading any data."""

from __future__ import annotations

import re

OPAQUE = "opaque"
CATALOG = ("items", "users", "interactions")
OF_LOG = re.compile(r"(share|users|noise)([1-9][0-9]?)")


def check_view(view: str) -> None:
    """Raise ValueError for a name that is no view."""
    if view and view != OPAQUE and not OF_LOG.fullmatch(view):
        raise ValueError(
            f"view {view!r}: expected {OPAQUE!r}, or share, users or noise with a percentage from "
            "1 to 99 (share25, users10, noise10)"
        )


def sees(view: str, table: str) -> bool:
    """Say whether ``table`` (of the catalog, or ``splits``) is another one under ``view``."""
    return bool(view) and table in (CATALOG if view == OPAQUE else ("splits",))
