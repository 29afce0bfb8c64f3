"""Register: fold, bundle, prove that it serves without a language model, log to MLflow."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ...plan import Register
from ...store.manifests import CheckOutcome
from ..context import Outcome, StepContext


def sources(node: Register, ctx: StepContext) -> dict[str, str]:
    """Return what a bundle holds besides its inputs: weights, log, and attributes for reasons.

    An evaluation's version is that of its metrics: other weights or another log can share it.
    """
    train = node.evaluation.model
    return {
        "weights": ctx.manifest(train).data_version,
        "log": ctx.manifest(train.log).data_version,
        "attributes": ", ".join(attributes_of(ctx)) or "none",
    }


def attributes_of(ctx: StepContext) -> list[str]:
    return [name for name, kind in ctx.field_kinds.items() if kind == "category"]


def run(node: Register, ctx: StepContext) -> Outcome:
    """Write the served bundle of the evaluated model and register it as a model version."""
    from ...registry.bundle import write_bundle
    from ...registry.index import suggested_index
    from ...registry.mlflow_store import MlflowStore, model_name
    from ...registry.scorer import Scorer
    from ...train.trained import load_export

    train = node.evaluation.model
    weights = ctx.load(train)
    data = ctx.load(train.log)
    items = ctx.load(node.items)
    trained = ctx.manifest(train)
    evaluation = ctx.manifest(node.evaluation)
    config, arrays = load_export(weights)
    work = Path(tempfile.mkdtemp(prefix="bundle-", dir=ctx.settings.data))
    try:
        folder = write_bundle(
            work / "bundle",
            config=config,
            arrays=arrays,
            data=data,
            items=items,
            attributes=attributes_of(ctx),
            index=suggested_index(data.n_items),
            meta={
                "dataset": ctx.dataset,
                "model": train.slug,
                "data_versions": {train.name: trained.data_version, **trained.inputs},
                **_unknown(weights),
            },
        )
        scorer = Scorer.load(folder)
        checks = _checks(scorer, data)
        name = model_name(ctx.dataset, train.log.task)
        version = MlflowStore.from_settings(ctx.settings).register_bundle(
            folder,
            name,
            tags={
                "asset": train.name,
                "data_version": trained.data_version,
                "digest": trained.digest,
                "flags": ",".join(evaluation.flags) or "none",
                "metrics": json.dumps(evaluation.info.get("metrics", {}), default=str),
                "dagster_run_id": ctx.run_id,
            },
            run_id=trained.info.get("mlflow_run") or None,
        )
        content = scorer.bundle.content_hash
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    finally:
        shutil.rmtree(work, ignore_errors=True)
    pointer = {"model_name": name, "version": version, "bundle": content, "train": train.name,
               "train_version": trained.data_version}  # fmt: skip

    def save(target: Path) -> None:
        (target / "version.json").write_text(json.dumps(pointer))

    return Outcome(
        save,
        content,
        rows=1,
        counts={
            "model_version": f"{name} version {version}",
            "bundle_bytes": size,
            "index": _searched(scorer.bundle.config["index"]),
        },
        checks=checks,
        info={**pointer, "mlflow_run": trained.info.get("mlflow_run", "")},
    )


def _searched(index: dict[str, Any] | None) -> str:
    return "none: scanned" if index is None else f"{index['kind']}, recall {index['recall']}"


def _unknown(weights: Path) -> dict[str, Any]:
    """Return the items that the weights know nothing of: they were added after the training."""
    record = json.loads((weights / "cell.json").read_text())
    return {k: record[k] for k in ("unknown_items",) if record.get(k)}


def _checks(scorer: Any, data: Any) -> tuple[CheckOutcome, ...]:
    from ...encode.invariants import module_names, no_language_model

    user = data.users.ids[0]
    known = scorer.recommend(user, k=5)
    unknown = scorer.recommend("a user that nobody knows", k=5)
    fine = bool(known["items"]) and bool(unknown["items"]) and bool(unknown["fallback"])
    told = {"known user": len(known["items"]), "unknown user": unknown["fallback"] or ""}
    clean = no_language_model(module_names(scorer.ranker) | module_names(_model(scorer)))
    return (
        CheckOutcome("no_llm_at_serving", clean.passed, True, dict(clean.details)),
        CheckOutcome("loads", fine, True, told),
    )


def _model(scorer: Any) -> Any:
    served = getattr(scorer.ranker, "served", None)
    return getattr(served, "net", served)
