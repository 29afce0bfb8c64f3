"""One function per page: request in, name of the template and its values out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..orchestrate.context import StepError
from ..orchestrate.diff import diff_versions
from ..orchestrate.lineage_url import (
    asset_path,
    dataset_path,
    diff_path,
    recommend_path,
    row_path,
)
from ..orchestrate.trace import Stored, trace_row
from ..orchestrate.trace.models import metric_of
from ..orchestrate.trace.recommendation import explain_recommendation
from ..orchestrate.trace.stored import verb_of
from ..orchestrate.trace.text import STAGES
from ..store.manifests import Manifest
from .browse import browse
from .site import Site

Page = tuple[str, dict[str, Any]]
Crumbs = list[tuple[str, str]]
_VERB_ORDER = ("table", "generate", "embed", "derive", "pin", "tune", "teach", "train", "distill",
               "evaluate", "register", "champion")  # fmt: skip


def home(site: Site, request: Request) -> Page:
    """All data sets of which something is stored."""
    rows = []
    for name in site.datasets():
        manifests = site.stored(name).all()
        made = max((m.created for m in manifests), default="")
        champions = [m.counts.get("champion", "") for m in manifests if verb_of(m) == "champion"]
        rows.append({"name": name, "assets": len(manifests), "made": made,
                     "champions": [c for c in champions if c and c != "none"]})  # fmt: skip
    return "home.html", {"datasets": rows, "crumbs": []}


def dataset(site: Site, request: Request) -> Page:
    """The assets of a data set by group, and where to begin a search."""
    stored = _stored(site, request)
    groups: dict[str, list[Manifest]] = {}
    for manifest in stored.all():
        groups.setdefault(manifest.name.split("/")[0], []).append(manifest)
    order = {verb: n for n, verb in enumerate(_VERB_ORDER)}
    ranked = sorted(groups.items(), key=lambda g: (order[verb_of(g[1][0])], g[0]))
    tasks = [m.name.split("__", 1)[1] for m in groups.get("registry", [])
             if verb_of(m) == "champion"]  # fmt: skip
    names = {m.name for found in groups.values() for m in found}
    return "dataset.html", {
        "dataset": stored.dataset, "groups": ranked, "tasks": tasks,
        "items": "catalog/items" in names, "users": "catalog/users" in names,
        "loaded": lambda name: stored.node(name) is not None, "crumbs": _crumbs(stored.dataset),
    }  # fmt: skip


def asset(site: Site, request: Request) -> Page:
    """One asset: its versions, what it was made from, its columns, its rows."""
    stored, name = _stored(site, request), _asset(request)
    version = request.query_params.get("version", "")
    manifest = site.manifest(stored, name, version)
    query = request.query_params.get("q", "").strip()
    entity = request.query_params.get("entity", "")
    listing, problem = None, ""
    try:
        titles = stored.titles(manifest if name == "catalog/items" else None)
        listing = browse(stored.load(manifest), titles, query, _number(request, "page", 1), entity)
    except StepError as error:
        problem = str(error)
    newest = stored.current(name)
    versions = sorted(stored.manifests.versions(stored.dataset, name),
                      key=lambda m: (m.data_version == newest.data_version, m.created),
                      reverse=True)  # fmt: skip
    here = {m.data_version: stored.folder(m).is_dir() for m in versions}
    return "asset.html", {
        "dataset": stored.dataset, "manifest": manifest, "newest": newest, "versions": versions,
        "here": here, "verb": verb_of(manifest),
        "metric": metric_of(stored, manifest) if verb_of(manifest) == "evaluate" else None,
        "listing": listing, "problem": problem, "query": query, "version": version,
        "inputs": list(stored.inputs(manifest)),
        "readers": [m for m in stored.all() if name in m.inputs],
        "loaded": stored.node(name) is not None,
        "crumbs": _crumbs(stored.dataset, name),
    }  # fmt: skip


def row(site: Site, request: Request) -> Page:
    """The whole way of one row."""
    stored, name = _stored(site, request), _asset(request)
    row_id = request.query_params.get("id")
    if row_id is None:
        raise HTTPException(400, "the address lacks ?id=...: choose a row on the asset's page")
    version = request.query_params.get("version", "")
    way = trace_row(
        stored, name, row_id, entity=request.query_params.get("entity", ""), version=version,
        aliases=site.aliases,
    )  # fmt: skip
    return "row.html", {
        "dataset": stored.dataset, "way": way, "crumbs": _crumbs(stored.dataset, name, row_id),
        "tasks": _tasks(stored) if way.entity == "user" else [],
    }  # fmt: skip


def diff(site: Site, request: Request) -> Page:
    """Two versions of an asset beside each other."""
    stored, name = _stored(site, request), _asset(request)
    before = request.query_params.get("from") or "previous"
    after = request.query_params.get("to") or "current"
    found = diff_versions(stored, name, before, after)
    crumbs = [*_crumbs(stored.dataset, name),
              ("comparison", diff_path(stored.dataset, name, before, after))]  # fmt: skip
    return "diff.html", {"dataset": stored.dataset, "diff": found, "crumbs": crumbs}


def recommendation(site: Site, request: Request) -> Page:
    """What is served to a user, and why."""
    stored = _stored(site, request)
    tasks = _tasks(stored)
    task = request.query_params.get("task") or (tasks[0] if tasks else "")
    user = request.query_params.get("user", "").strip()
    found = None
    if user:
        k = _number(request, "k", 10)
        found = explain_recommendation(stored, site.champion, task, user, k)
    crumbs = [*_crumbs(stored.dataset), ("recommendation", recommend_path(stored.dataset, task))]
    return "recommend.html", {"dataset": stored.dataset, "tasks": tasks, "task": task,
                              "user": user, "found": found, "crumbs": crumbs}  # fmt: skip


def _stored(site: Site, request: Request) -> Stored:
    return site.stored(request.path_params["dataset"])


def _asset(request: Request) -> str:
    return f"{request.path_params['prefix']}/{request.path_params['slug']}"


def _tasks(stored: Stored) -> list[str]:
    return [n.split("__", 1)[1] for n in stored.manifests.names(stored.dataset)
            if n.startswith("registry/champion__")]  # fmt: skip


def _number(request: Request, name: str, default: int) -> int:
    given = request.query_params.get(name, "")
    if not given:
        return default
    if not given.isascii() or not given.isdigit() or len(given) > 9:
        raise HTTPException(400, f"{name} = {given!r}: expected a whole number")
    return int(given)


def _crumbs(dataset: str, name: str = "", row_id: str = "") -> Crumbs:
    out = [(dataset, dataset_path(dataset))]
    if name:
        out.append((name, asset_path(dataset, name)))
    if row_id:
        out.append((row_id, row_path(dataset, name, row_id)))
    return out


def _pretty(value: Any) -> str:
    """Return nested data as indented JSON text."""
    return json.dumps(value, ensure_ascii=False, indent=1, default=str)


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_told(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_told, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def _fixed(value: float | None, digits: int = 4, signed: bool = False) -> str:
    return "n/a" if value is None else f"{value:{'+' if signed else ''}.{digits}f}"


HELPERS = {
    "asset_path": asset_path, "dataset_path": dataset_path, "row_path": row_path,
    "diff_path": diff_path, "recommend_path": recommend_path, "pretty": _pretty, "told": _told,
    "fixed": _fixed, "stages": STAGES, "verb_of": verb_of,
}  # fmt: skip
