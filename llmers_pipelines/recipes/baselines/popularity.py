"""Popularity: training counts, the floor of every table.

Under a split by time give ``days`` (such as 30): counts of all times rank what was popular once.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import Popularity, Train, recipe, splits


@recipe(name="Popularity", task="sequential", family="baselines")
def popularity(days=0, protocol="sequential"):
    return Train(Popularity(days=days), splits(protocol))
