"""The code location that Dagster loads."""

from __future__ import annotations

import dagster as dg

from llmers_pipelines.config import load_settings
from llmers_pipelines.orchestrate.assemble import build_definitions


@dg.definitions
def defs() -> dg.Definitions:
    settings = load_settings()
    settings.apply_environment()
    return build_definitions(settings)
