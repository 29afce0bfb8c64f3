"""The way of one row: every version that it passed through, and what was made from it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ...data.training import TrainingData
from ...data.vectors import VectorTable
from ...store.manifests import Manifest
from ..context import StepError
from .answers import answer_content
from .entities import entities_of, holds, log_content, named_items, table_content
from .form import Content, Step, Way, plain
from .models import Aliases, Consumers
from .stored import Stored, verb_of
from .vectors import vector_content


def no_aliases(name: str) -> dict[str, str]:
    """Stand for a registry that nobody asked."""
    return {}


def trace_row(
    stored: Stored,
    asset: str,
    row_id: str,
    *,
    entity: str = "",
    version: str = "",
    aliases: Aliases = no_aliases,
) -> Way:
    """Return the whole way of one row of ``asset`` (its newest ``version`` unless told).

    ``entity`` ("item" or "user") says whose id it is where an asset knows both. ``aliases`` asks
    the registry. Raises ``StepError`` where the asset, the version or the row is missing.
    """
    manifest = stored.version(asset, version) if version else stored.current(asset)
    if manifest is None:
        raise StepError(f"{asset} @ {version} is not stored; see `llmers diff` for what is")
    artifact = stored.load(manifest)
    kinds = entities_of(artifact)
    if entity and kinds and entity not in kinds:
        raise StepError(f"{asset} holds rows of {' and '.join(kinds)}s, not of {entity}s")
    chosen = [entity] if entity else [k for k in kinds if holds(artifact, k, row_id)]
    if not chosen or not holds(artifact, chosen[0], row_id):
        what = "row" if kinds else "rows by id, and so none"
        raise StepError(
            f"{asset} of data set {stored.dataset!r} has no {what} {row_id!r}; see "
            f"`llmers sql` or the lineage page for its ids"
        )
    entity = chosen[0]
    steps: dict[tuple[str, str], Step] = {}
    _walk(stored, manifest, entity, row_id, steps, asked=True)
    way = tuple(steps.values())
    consumers = Consumers(stored, manifest)
    titles = stored.titles()
    named = dict(named_items([_mentioned(s.content) for s in way], titles))
    return Way(
        dataset=stored.dataset, asset=asset, id=row_id, entity=entity,
        title=titles.get(row_id) if entity == "item" else None,
        data_version=manifest.data_version, steps=way,
        onward=consumers.onward(entity, row_id), models=consumers.models(aliases), titles=named,
    )  # fmt: skip


def _walk(
    stored: Stored, manifest: Manifest, entity: str, row_id: str,
    steps: dict[tuple[str, str], Step], asked: bool = False,
) -> bool:  # fmt: skip
    """Add the step of ``manifest`` behind those that it was made from; say if it is on the way.

    ``asked``: it is the asset whose row was asked for.
    """
    key = (manifest.name, manifest.data_version)
    if key in steps:
        return True
    content, problem = None, ""
    try:
        content = _content(stored, manifest, entity, row_id, asked)
    except StepError as error:
        problem = str(error)
    if content is None and not problem:
        return False
    reads, also = [], []
    for name, before in stored.inputs(manifest):
        if before is None:
            problem = problem or f"the version of {name} that was read is stored no more"
        elif _walk(stored, before, entity, row_id, steps):
            reads.append(name)
        else:
            also.append(name)
    newest = stored.newest(manifest.name)
    steps[key] = Step(
        asset=manifest.name, verb=verb_of(manifest), data_version=manifest.data_version,
        code_version=manifest.code_version, made=manifest.created,
        current=newest is not None and newest.data_version == manifest.data_version,
        reads=tuple(reads), also_read=tuple(also), sources=dict(manifest.sources),
        flags=manifest.flags, held_by=tuple(manifest.held_by), content=content, problem=problem,
    )  # fmt: skip
    return True


def _content(
    stored: Stored, manifest: Manifest, entity: str, row_id: str, asked: bool
) -> Content | None:
    artifact = stored.load(manifest)
    if entity not in entities_of(artifact):
        return None
    titles = stored.titles()
    if isinstance(artifact, TrainingData):
        return log_content(artifact, entity, row_id, titles)
    if isinstance(artifact, VectorTable):
        encoder = str(manifest.info.get("encoder", ""))
        return vector_content(artifact, row_id, stored.folder(manifest), encoder, titles)
    if not isinstance(artifact, pa.Table):
        return None
    if manifest.name == "catalog/interactions" and not asked:
        return None  # the log of the splits tells the same rows, with the split of each
    if verb_of(manifest) == "generate":
        return answer_content(stored, manifest, artifact, entity, row_id)
    return table_content(manifest, artifact, entity, row_id)


def _mentioned(content: Any) -> Any:
    """Return the parts of a step that may name items."""
    told = plain(content) if content is not None else {}
    value = told.get("value", {})
    return {"rows": told.get("rows", []) if told.get("kind") == "table" else [],
            "liked": value.get("liked"), "disliked": value.get("disliked")}  # fmt: skip


def registry_aliases(settings: Any) -> Aliases:
    """Return a reader of the registry's aliases; a home without a registry has none."""
    if settings.mlflow_uri.startswith("sqlite:///"):
        from pathlib import Path

        if not Path(settings.mlflow_uri.removeprefix("sqlite:///")).is_file():
            return no_aliases
    from ...registry.mlflow_store import MlflowStore

    return MlflowStore.from_settings(settings).aliases
