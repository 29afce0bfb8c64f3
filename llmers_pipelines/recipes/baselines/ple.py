"""PLE (RecSys'20): experts of each scenario beside shared ones.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import PLE, Train, recipe, splits


@recipe(
    name="PLE", task="multi_scenario", family="baselines", paper="doi:10.1145/3383313.3412236",
    requires=("label", "scenario"),
)  # fmt: skip
def ple(backbone=PLE(), protocol="multi_scenario"):
    return Train(backbone, splits(protocol))
