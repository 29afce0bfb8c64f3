"""Text two-tower (YouTube, RecSys'19): histories and items meet in the space of their words.

Served online: its user tower over a table of item vectors.
"""

from __future__ import annotations

from llmers_pipelines.api import Train, TwoTower, recipe, splits


@recipe(name="TwoTower", task="retrieval", family="baselines", paper="doi:10.1145/3298689.3346996")
def two_tower(backbone=TwoTower(), protocol="retrieval"):
    return Train(backbone, splits(protocol))
