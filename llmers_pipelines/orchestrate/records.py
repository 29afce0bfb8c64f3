"""Proofs of a recipe, read from what tests and results left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..config import Method, Settings
from ..recipe import Recipe, discover
from ..store.manifests import ManifestStore
from .build import instantiate

TESTS = "records/tests.json"
PACKAGED = Path(__file__).resolve().parent.parent / "records"


def proofs_of(recipe: Recipe, settings: Settings) -> dict[str, bool]:
    """Return which proofs stand for the code as it is now.

    A record names the digest of the recipe that it was made with; another digest proves nothing.
    """
    digest = recipe_digest(recipe.slug)
    tests = _read(settings.data / TESTS) or _read(PACKAGED / "tests.json")
    mine = tests.get(recipe.slug, {})
    proven = {kind: _holds(mine.get(kind), digest) for kind in ("equations", "served")}
    results = _read(settings.data / "records" / "results.json") or _read(PACKAGED / "results.json")
    lift = [r for r in results.get(recipe.slug, []) if r.get("digest") == digest]
    return {
        "equations": proven["equations"],
        "materialized": _materialized(recipe, settings) or bool(lift),
        "lift": any(r.get("verdict") == "claimed" for r in lift),
        "served": proven["served"],
    }


def recipe_digest(slug: str) -> str:
    """Return the digest of a recipe's default training node: the code that a record speaks of."""
    return instantiate(Method(slug), discover())[1].digest


def _holds(record: dict[str, Any] | None, digest: str) -> bool:
    return bool(record) and record.get("digest") == digest and record.get("passed") is True


def _materialized(recipe: Recipe, settings: Settings) -> bool:
    store = ManifestStore(settings.data)
    return any(
        m.name.startswith("evaluations/") and m.info.get("recipe") == recipe.slug
        for dataset in store.datasets()
        for m in store.all(dataset)
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
