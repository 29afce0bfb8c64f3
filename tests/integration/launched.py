"""Launching assets of the shop as the UI does, and what such a run says of itself."""

from __future__ import annotations

from typing import Any

import dagster as dg
from shop import Shop

from llmers_pipelines.orchestrate.assemble import build_definitions
from llmers_pipelines.orchestrate.home import open_instance


def name_of(shop: Shop, prefix: str, start: str) -> str:
    return next(n.name for n in shop.plan().nodes if n.name.startswith(f"{prefix}/{start}__"))


def op(name: str) -> str:
    return name.replace("/", "__")


def run(shop: Shop, config: dict[str, Any], *names: str) -> Any:
    """Materialize ``names`` as the UI does, with a run config for the first."""
    defs = build_definitions(shop.settings())
    job = defs.resolve_implicit_global_asset_job_def()
    with open_instance(shop.settings()) as instance:
        return job.get_subset(
            asset_selection={dg.AssetKey(n.split("/")) for n in names}
        ).execute_in_process(
            run_config={"ops": {op(names[0]): {"config": config}}}, partition_key="shop",
            instance=instance, raise_on_error=False,
        )  # fmt: skip


def observations(result: Any) -> list[Any]:
    return [e.asset_observation_data.asset_observation for e in result.all_events
            if e.event_type_value == "ASSET_OBSERVATION"]  # fmt: skip


def messages(result: Any) -> str:
    return "\n".join(
        str(e.step_failure_data.error.cause or e.step_failure_data.error)
        for e in result.all_events if e.is_step_failure
    )  # fmt: skip
