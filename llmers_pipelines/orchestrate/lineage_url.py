"""Addresses of the lineage pages: what a materialization links to. They stay as they are."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from ..config import Settings

DEFAULT_PORT = 3001


def lineage_root(settings: Settings) -> str:
    """Return where the pages are served: ``[ui] lineage_url``, else the port of ``llmers up``."""
    return settings.lineage_url.rstrip("/") or f"http://127.0.0.1:{DEFAULT_PORT}"


def dataset_path(dataset: str) -> str:
    return f"/d/{quote(dataset, safe='')}"


def asset_path(dataset: str, asset: str, **query: str) -> str:
    """Return the page of an asset ``prefix/slug``; empty values of ``query`` are left out."""
    return f"{dataset_path(dataset)}/a/{quote(asset)}{_query(query)}"


def row_path(dataset: str, asset: str, row_id: str, **query: str) -> str:
    """Return the page of one row. The id is a parameter, so it may hold any character."""
    return f"{dataset_path(dataset)}/a/{quote(asset)}/row{_query({'id': row_id, **query})}"


def diff_path(dataset: str, asset: str, before: str, after: str) -> str:
    query = _query({"from": before, "to": after})
    return f"{dataset_path(dataset)}/a/{quote(asset)}/diff{query}"


def recommend_path(dataset: str, task: str, user: str = "") -> str:
    return f"{dataset_path(dataset)}/recommend{_query({'task': task, 'user': user})}"


def _query(values: dict[str, str]) -> str:
    given = {k: v for k, v in values.items() if v}
    return f"?{urlencode(given, quote_via=quote)}" if given else ""
