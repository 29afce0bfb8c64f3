"""Back from a served recommendation: why this item for this user, and what the model read of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ...data.training import TrainingData
from ...store.manifests import Manifest
from ..context import StepError
from .entities import entities_of, holds, log_content
from .form import Metric, Named, plain
from .models import brief, metric_of
from .stored import MODELS, Stored, verb_of

Champion = Callable[[str, str], tuple[Any, str]]  # (data set, task) -> (scorer, version)


@dataclass(frozen=True)
class Read:
    """A row that the model was made from: link to it, and what it says in short."""

    asset: str
    data_version: str
    verb: str
    id: str
    entity: str
    brief: str = ""


@dataclass(frozen=True)
class Recommended:
    """One item of the list. ``nearest``: items of the history that are most like it; ``shared``:
    attribute -> value -> in how many items of the history it occurs."""

    item: Named
    score: float
    by: str
    nearest: tuple[Named, ...]
    shared: Mapping[str, Mapping[str, int]]
    read: tuple[Read, ...]


@dataclass(frozen=True)
class Recommendation:
    """The list that is served to a user now, from the champion of a task, with its evidence."""

    dataset: str
    task: str
    user: str
    model: str
    version: str
    asset: str  # of the trained model, "" where its version is stored no more
    data_version: str
    flags: tuple[str, ...]
    metric: Metric | None
    fallback: str
    note: str
    history: tuple[Named, ...]
    user_read: tuple[Read, ...]
    items: tuple[Recommended, ...]

    def as_json(self) -> dict[str, Any]:
        return plain(self)


def explain_recommendation(
    stored: Stored, champion: Champion, task: str, user: str, k: int = 10
) -> Recommendation:
    """Ask the served champion as ``llmers recommend --explain`` does, and join what it was made of.

    Raises ``StepError`` for a task that the data set does not have.
    """
    stored.context.description.split(task)
    if not 1 <= k <= 100:
        raise StepError(f"k = {k}; between 1 and 100")
    scorer, version = champion(stored.dataset, task)
    answer = scorer.recommend(user, k=k, explain=True)
    asset, made = _model_of(scorer.bundle.config)
    train = stored.version(asset, made) if asset else None
    sources = _upstream(stored, train) if train is not None else []
    evaluation = stored.newest(f"evaluations/{asset.partition('/')[2]}") if asset else None
    if evaluation is not None and evaluation.inputs.get(asset, "").split(" ")[0] != made:
        evaluation = None
    titles = stored.titles()
    log = next((a for m in sources if isinstance(a := _load(stored, m), TrainingData)), None)
    past = log_content(log, "user", user, titles) if log is not None else None
    return Recommendation(
        stored.dataset, task, user, str(answer["model"]), version,
        asset if train is not None else "", made, train.flags if train is not None else (),
        metric_of(stored, evaluation) if evaluation is not None else None,
        answer["fallback"] or "", answer["note"] or "",
        past.newest if past is not None else (),
        _reads(stored, sources, "user", user),
        tuple(_item(stored, row, sources) for row in answer["items"]),
    )  # fmt: skip


def _item(stored: Stored, row: Mapping[str, Any], sources: list[Manifest]) -> Recommended:
    why = row.get("why") or {}
    near = tuple(Named(n["item_id"], n["title"], n["similarity"]) for n in why.get("nearest", ()))
    item = Named(row["item_id"], row["title"])
    return Recommended(item, float(row["score"]), str(why.get("by", "")), near,
                       why.get("shared", {}), _reads(stored, sources, "item", item.id))  # fmt: skip


def _model_of(config: Mapping[str, Any]) -> tuple[str, str]:
    """Return asset and version of the trained model that a bundle was made from."""
    for name, version in config.get("data_versions", {}).items():
        if name.split("/")[0] in MODELS and name.split("/", 1)[1] == config["model"]:
            return name, str(version).split(" ")[0]
    return "", ""


def _upstream(stored: Stored, manifest: Manifest) -> list[Manifest]:
    """Return the versions that a model was made from, sources first, each once."""
    out: dict[tuple[str, str], Manifest] = {}

    def visit(one: Manifest) -> None:
        for _, before in stored.inputs(one):
            if before is not None and (before.name, before.data_version) not in out:
                visit(before)
                out[(before.name, before.data_version)] = before

    visit(manifest)
    return list(out.values())


def _load(stored: Stored, manifest: Manifest) -> Any:
    try:
        return stored.load(manifest)
    except StepError:
        return None


def _reads(
    stored: Stored, sources: list[Manifest], entity: str, row_id: str
) -> tuple[Read, ...]:
    """Return the rows of one entity that the model was made from; the plain log counts apart."""
    out = []
    for manifest in sources:
        artifact = _load(stored, manifest)
        if isinstance(artifact, TrainingData) or manifest.name == "catalog/interactions":
            continue
        if isinstance(artifact, pa.Table) and entities_of(artifact)[:1] != (entity,):
            continue
        if artifact is not None and holds(artifact, entity, row_id):
            out.append(Read(manifest.name, manifest.data_version, verb_of(manifest), row_id,
                            entity, brief(artifact, entity, row_id)))  # fmt: skip
    return tuple(out)
