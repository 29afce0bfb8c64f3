"""A plan -> Dagster ``Definitions``: assets, checks, jobs, schedules and the executor."""

from __future__ import annotations

import dagster as dg

from ..config import Settings
from .build import Plan, build_plan
from .factories import asset_for
from .jobs import jobs_of, schedules_of
from .leaderboard import leaderboard_asset
from .sensor import refreshing
from .uncollected import uncollected


@uncollected()
def build_definitions(settings: Settings, plan: Plan | None = None) -> dg.Definitions:
    """Return the code location of ``settings``. Imports no torch, transformers, vllm or mlflow."""
    plan = build_plan(settings) if plan is None else plan
    assets = [asset_for(node, plan, settings) for node in plan.nodes]
    status, sensor = refreshing(settings, plan)
    assets += [leaderboard_asset(plan, settings), status]
    executor = dg.in_process_executor
    return dg.Definitions(
        assets=assets,
        jobs=jobs_of(plan),
        schedules=schedules_of(settings),
        sensors=[sensor],
        executor=executor,
    )
