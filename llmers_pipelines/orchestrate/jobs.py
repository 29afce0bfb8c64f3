"""Jobs and schedules for the usual things. Schedules are off until they are switched on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import dagster as dg

from ..config import Settings
from ..plan import Champion, Derive, Embed, Generate, Node, Pin, Register, Table, Teach, Tune, walk
from ..recipe import FAMILIES
from ..store.manifests import ManifestStore
from .build import Plan
from .leaderboard import KEY as LEADERBOARD

_MADE_BY_LLM = (Generate, Embed, Derive, Pin, Teach, Tune)


def jobs_of(plan: Plan) -> list[Any]:
    """Return the jobs of a plan: what was unchanged is published again without work."""
    families = {m.recipe.family for m in plan.methods}
    return [
        _job("refresh_catalog", (n for n in plan.nodes if isinstance(n, Table)),
             "Read the data set's files, validate them, cut the splits. Asks no model."),
        _job("enhancements", walk([n for n in plan.nodes if isinstance(n, _MADE_BY_LLM)]),
             "All that a language model adds (answers, vectors, features, teachers) and what it is "
             "made of. May ask the configured model; `llmers plan` tells how much."),
        *(_job(f"family__{name}", plan.select([name]),
               f"Every method of the family {name}, from the catalog to the registry.")
          for name in FAMILIES if name in families),
        *(_job(f"method__{m.slug}", plan.select([m.slug]),
               f"{m.recipe.name}: everything from the catalog to the registry.")
          for m in plan.methods),
        _job("champion_race",
             walk([n for n in plan.nodes if isinstance(n, (Register, Champion))]),
             "Train, evaluate and register every method, then let the gate of each task judge."),
        dg.define_asset_job("report", selection=dg.AssetSelection.assets(LEADERBOARD),
                            description="The leaderboard of what has been evaluated so far."),
    ]  # fmt: skip


def _job(name: str, nodes: Iterable[Node], description: str) -> Any:
    keys = [dg.AssetKey(list(n.key)) for n in nodes]
    selection = dg.AssetSelection.assets(*keys)
    return dg.define_asset_job(name, selection=selection, description=description)


# (schedule, its job, cron, what it is for)
_SCHEDULES = (
    ("refresh_catalog_hourly", "refresh_catalog", "0 * * * *",
     "For sources that the refresh sensor cannot watch. Hourly; off until switched on."),
    ("champion_race_weekly", "champion_race", "0 4 * * 0",
     "Every Sunday at 04:00; off until switched on. May ask the configured model."),
    ("report_daily", "report", "0 6 * * *", "Every day at 06:00; off until switched on."),
)  # fmt: skip


def schedules_of(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Return the schedules: one run for each data set that has been materialized before."""
    return [_schedule(*row, settings) for row in _SCHEDULES]


def _schedule(
    name: str, job: str, cron: str, description: str, settings: Settings
) -> dg.ScheduleDefinition:
    def requests(context: dg.ScheduleEvaluationContext) -> Iterator[Any]:
        partitions = set(context.instance.get_dynamic_partitions("dataset"))
        known = [d for d in ManifestStore(settings.data).datasets() if d in partitions]
        if not known:
            yield dg.SkipReason("no data set has been materialized yet")
        at = context.scheduled_execution_time.isoformat()
        for dataset in known:
            yield dg.RunRequest(
                run_key=f"{at}/{dataset}", partition_key=dataset, tags={"llmers/dataset": dataset}
            )

    return dg.ScheduleDefinition(
        name=name, job_name=job, cron_schedule=cron, execution_fn=requests,
        description=description, default_status=dg.DefaultScheduleStatus.STOPPED,
    )  # fmt: skip
