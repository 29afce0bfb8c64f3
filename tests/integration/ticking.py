"""The refresh sensor without its daemon: ticks by hand, and their runs in this process."""

from __future__ import annotations

import os
import time
from typing import Any

import dagster as dg
from shop import Shop

from llmers_pipelines.orchestrate.assemble import build_definitions
from llmers_pipelines.orchestrate.build import build_plan
from llmers_pipelines.orchestrate.home import open_instance
from llmers_pipelines.orchestrate.refresh import SETTLED, Row, Watch
from llmers_pipelines.orchestrate.sensor import Memory, Ticked, tick


class Ticking:
    """A shop with a sensor's memory; ``loaded`` reads settings and plan again."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.memory = shop, Memory()
        self.opened = 0
        self.rows: dict[str, Row] = {}
        self.load()

    def load(self, **changes: Any) -> None:
        self.settings = self.shop.settings(**changes)
        self.settings.apply_environment()
        self.plan = build_plan(self.settings)
        self.watch = Watch(self.settings, self.plan)
        self.instance = open_instance(self.settings)

    def tick(self, *, settled: bool = True) -> Ticked:
        """Look once; files that were just written count as written long ago."""
        if settled:
            age = time.time() - 10 * SETTLED
            for path in self.shop.folder.iterdir():
                if time.time() - path.stat().st_mtime < SETTLED:
                    # Another moment for every write: two edits are two versions of the file.
                    os.utime(path, ns=(int(age * 1e9), int(age * 1e9) + path.stat().st_size))

        def opened() -> dg.DagsterInstance:
            self.opened += 1
            return self.instance

        done = tick(self.watch, self.memory, opened)
        self.memory = Memory.read(self.memory.cursor())
        if done.rows is not None:
            self.rows = {row.asset: row for _, row in done.rows}
        return done

    def run(self, request: dg.RunRequest) -> dict[str, str]:
        """Execute what was asked for; return asset -> materialized or reused."""
        definitions = build_definitions(self.settings, self.plan)
        result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            asset_selection=request.asset_selection, partition_key=request.partition_key,
            instance=self.instance, raise_on_error=False,
            tags={**request.tags, "dagster/run_key": request.run_key},
        )  # fmt: skip
        return {
            "/".join(e.asset_key.path): str(e.materialization.metadata["status"].value)
            for e in result.all_events if e.is_step_materialization
        }  # fmt: skip

    def refresh(self) -> dict[str, str]:
        """Look, run what is asked for, look again; return what the run did ({}: no run)."""
        requests = self.tick().requests
        assert len(requests) <= 1
        done = self.run(requests[0]) if requests else {}
        assert self.tick().requests == [], "one run is enough"
        return done
