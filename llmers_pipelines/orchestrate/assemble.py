"""A plan -> Dagster ``Definitions``: assets, checks, jobs and the executor."""

from __future__ import annotations

import dagster as dg

from ..config import Settings
from .build import Plan, build_plan
from .factories import asset_for, checks_for, key_of
from .sensor import refreshing


def build_definitions(settings: Settings, plan: Plan | None = None) -> dg.Definitions:
    """Return the code location of ``settings``. Imports no torch, transformers, vllm or mlflow."""
    plan = build_plan(settings) if plan is None else plan
    assets = [asset_for(node, plan, settings) for node in plan.nodes]
    checks = [c for node in plan.nodes if (c := checks_for(node, settings)) is not None]
    jobs = [
        dg.define_asset_job(
            f"method__{method.slug}",
            selection=dg.AssetSelection.assets(*(key_of(n) for n in plan.select([method.slug]))),
            description=f"{method.recipe.name}: everything from the catalog to the registry.",
        )
        for method in plan.methods
    ]
    executor = dg.in_process_executor
    status, sensor = refreshing(settings, plan)
    return dg.Definitions(
        assets=[*assets, status], asset_checks=checks, jobs=jobs, sensors=[sensor],
        executor=executor,
    )  # fmt: skip
