"""The refresh sensor and the table of what is stale: what moved becomes one run per data set.

No postponed annotations here: Dagster reads the types of ``context`` as objects.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus as Status

from ..config import Settings
from .build import Plan
from .factories import DATASETS, OWNERS, key_of
from .home import release_dead_runs
from .markdown import plain
from .refresh import Look, Row, Watch
from .reload import Loaded

NAME = "refresh"
STATUS = dg.AssetKey(["catalog", "status"])
TAG = "llmers/refresh"  # of the runs that the sensor asked for: the data set
_RUNNING = [Status.QUEUED, Status.NOT_STARTED, Status.STARTING, Status.STARTED, Status.CANCELING]
_SHOWN = 200  # rows of the table


@dataclass
class Memory:
    """What the sensor keeps from tick to tick, per data set; its cursor is this as JSON.

    ``asked``: how many runs it asked for. ``open``: the one it waits for. ``tried``:
    combinations whose run ended without them, though nothing was recorded to have failed: a run
    that was cancelled or killed is not started again by itself.
    """

    asked: dict[str, int] = field(default_factory=dict)
    open: dict[str, dict[str, Any]] = field(default_factory=dict)
    tried: dict[str, dict[str, str]] = field(default_factory=dict)
    partitions: list[str] = field(default_factory=list)
    told: str = ""  # hash of the table that was published last

    @classmethod
    def read(cls, cursor: str | None) -> "Memory":
        try:
            return cls(**json.loads(cursor)) if cursor else cls()
        except (ValueError, TypeError):  # of another version: nothing in it is needed
            return cls()

    def cursor(self) -> str:
        return json.dumps(vars(self), sort_keys=True)


@dataclass
class Ticked:
    """What one tick decided."""

    requests: list[dg.RunRequest]
    added: list[str]  # data sets that become partitions
    rows: list[tuple[str, Row]] | None  # the table, where it differs from the published one
    notes: list[str]


def tick(watch: Watch, memory: Memory, opened: Any) -> Ticked:
    """Compare every data set and ask for at most one run of each; ``memory`` is brought up to date.

    ``opened()`` returns Dagster's instance; it is called only where something is to be asked of it,
    because opening its storage costs more than everything else in an idle tick.
    """
    requests, notes, looks = [], [], {}
    for name in watch.datasets():
        if memory.open.get(name) and not _ended(name, watch, memory, opened()):
            notes.append(f"{name}: a refresh run is under way")
            looks[name] = None
            continue
        look = looks[name] = watch.look(name, memory.tried.get(name))
        _forget(name, look, memory)
        if look.waits:
            notes.append(f"{name}: waiting until {look.waits} is written")
        if not look.request:
            continue
        if other := _active(opened(), name):
            notes.append(f"{name}: waiting for run {other[:8]}")
            continue
        memory.asked[name] = memory.asked.get(name, 0) + 1
        key = f"{name}-{memory.asked[name]}-{_hash(sorted(look.roots.items()))}"
        memory.open[name] = {"key": key, "roots": dict(look.roots)}
        requests.append(request(name, key, look))
        notes.append(f"{name}: {len(look.request)} assets after {', '.join(look.roots)}")
    added = []
    if (described := watch.described()) != memory.partitions:
        known = set(opened().get_dynamic_partitions(DATASETS.name))
        added, memory.partitions = [n for n in described if n not in known], described
    rows = None
    if None not in looks.values():  # while a run is under way the table would be half true
        found = [(name, row) for name, look in looks.items() for row in look.rows]
        if (told := _hash([(n, vars(r)) for n, r in found])) != memory.told:
            rows, memory.told = found, told
    return Ticked(requests, added, rows, notes)


def request(dataset: str, key: str, look: Look) -> dg.RunRequest:
    """Return the request of one run that brings ``look.request`` up to date."""
    return dg.RunRequest(
        run_key=key,
        partition_key=dataset,
        asset_selection=[dg.AssetKey(name.split("/")) for name in look.request],
        tags={TAG: dataset, "llmers/dataset": dataset,
              "llmers/because": _because(look)},
    )  # fmt: skip


def _because(look: Look) -> str:
    whys = {row.asset: row.because for row in look.rows}
    return "; ".join(f"{name}: {whys[name]}" for name in list(look.roots)[:3])[:250]


def _ended(name: str, watch: Watch, memory: Memory, instance: dg.DagsterInstance) -> bool:
    """Say whether the run that is waited for is over; remember what it left unmade."""
    asked = memory.open[name]
    found = instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": asked["key"]}), limit=1)
    if found and not found[0].is_finished:
        return False
    memory.open.pop(name)
    if found and found[0].status != Status.SUCCESS:
        ran = {"/".join(key.path) for key in found[0].asset_selection or ()}
        left = {
            asset: key for asset, key in watch.look(name).roots.items()
            # What changed while the run was under way is new, and no part of what ended badly.
            if asset in ran and asked["roots"].get(asset, key) == key
        }  # fmt: skip
        memory.tried[name] = {**memory.tried.get(name, {}), **left}
    return True


def _forget(name: str, look: Look, memory: Memory) -> None:
    """Keep of what was tried only what is still stale."""
    stale = {row.asset for row in look.rows}
    kept = {k: v for k, v in memory.tried.get(name, {}).items() if k in stale or look.waits}
    if kept:
        memory.tried[name] = kept
    else:
        memory.tried.pop(name, None)


def _active(instance: dg.DagsterInstance, dataset: str) -> str:
    """Return a run over the data set that is queued or in progress, "" where there is none."""
    runs = dg.RunsFilter(tags={"dagster/partition": dataset}, statuses=_RUNNING)
    found = instance.get_runs(runs, limit=1)
    if found and release_dead_runs(instance):  # a killed command never says that it is over
        found = instance.get_runs(runs, limit=1)
    return found[0].run_id if found else ""


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()[:12]


def status_metadata(rows: Iterable[tuple[str, Row]]) -> Mapping[str, Any]:
    """Return the table of what is stale as metadata of ``catalog/status``."""
    rows = list(rows)
    held = sum(bool(row.held_by) for _, row in rows)
    lines = ["| data set | asset | stale because | held by |", "|---|---|---|---|"]
    for name, row in rows[:_SHOWN]:
        cells = (name, row.asset, row.because, "; ".join(row.held_by) or "-")
        lines.append("| " + " | ".join(_cell(c) for c in cells) + " |")
    if len(rows) > _SHOWN:
        lines.append(f"| and {len(rows) - _SHOWN} more | `llmers status` | | |")
    table = "\n".join(lines) if rows else "Everything that was made is fresh."
    return {"dagster/row_count": len(rows), "stale": len(rows), "held": held,
            "status": dg.MetadataValue.md(table)}  # fmt: skip


def _cell(text: str) -> str:
    return plain(" ".join(text.split())[:160])


def refreshing(settings: Settings, plan: Plan) -> tuple[dg.AssetsDefinition, dg.SensorDefinition]:
    """Return the asset ``catalog/status`` and the sensor that keeps everything fresh."""
    watch, loaded = Watch(settings, plan), Loaded(settings)

    @dg.asset(
        key=STATUS, group_name="catalog", kinds={"markdown"}, owners=OWNERS, code_version="1",
        tags={"llmers/verb": "status"}, output_required=False,
        description="What is stale, why, and which failed check or run holds it, for every data "
        "set. The refresh sensor reports it when it changes; `llmers status` prints it.",
    )  # fmt: skip
    def status(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        fresh = Watch(settings, plan)
        rows = [(name, row) for name in fresh.datasets() for row in fresh.look(name).rows]
        return dg.MaterializeResult(metadata=status_metadata(rows))

    @dg.sensor(
        name=NAME,
        target=dg.AssetSelection.assets(*(key_of(n) for n in plan.nodes)),
        minimum_interval_seconds=settings.refresh_seconds,
        default_status=(
            dg.DefaultSensorStatus.RUNNING if settings.refreshes else dg.DefaultSensorStatus.STOPPED
        ),
        description="Notices changed sources, prompts, components, models and settings and asks "
        "for one run per data set that makes what follows from them.",
    )
    def refresh(context: dg.SensorEvaluationContext) -> Any:
        if told := loaded.behind(context.code_location_origin):
            return dg.SkipReason(told)
        memory = Memory.read(context.cursor)
        done = tick(watch, memory, lambda: context.instance)
        events = [] if done.rows is None else [
            dg.AssetMaterialization(asset_key=STATUS, metadata=status_metadata(done.rows))
        ]  # fmt: skip
        added = [DATASETS.build_add_request(done.added)] if done.added else []
        if not (done.requests or events or added) and memory.cursor() == context.cursor:
            return dg.SkipReason("; ".join(done.notes) or "everything that was made is fresh")
        return dg.SensorResult(
            run_requests=done.requests, cursor=memory.cursor(), asset_events=events,
            dynamic_partitions_requests=added,
            skip_reason=None if done.requests else "; ".join(done.notes) or "nothing to run",
        )  # fmt: skip

    return status, refresh
