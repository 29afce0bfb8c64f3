"""STAR (CIKM'21): shared weights times those of each scenario.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import STAR, Train, recipe, splits


@recipe(
    name="STAR", task="multi_scenario", family="baselines", paper="arXiv:2101.11427",
    requires=("label", "scenario"),
)  # fmt: skip
def star(backbone=STAR(), protocol="multi_scenario"):
    return Train(backbone, splits(protocol))
