"""MMoE (KDD'18): shared experts, mixed by a gate of each scenario.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import MMoE, Train, recipe, splits


@recipe(
    name="MMoE", task="multi_scenario", family="baselines", paper="doi:10.1145/3219819.3220007",
    requires=("label", "scenario"),
)  # fmt: skip
def mmoe(backbone=MMoE(), protocol="multi_scenario"):
    return Train(backbone, splits(protocol))
