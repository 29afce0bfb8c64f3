"""ItemKNN: cosine of co-occurrence columns, no training.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import ItemKNN, Train, recipe, splits


@recipe(name="ItemKNN", task="sequential", family="baselines")
def itemknn(backbone=ItemKNN(), protocol="sequential"):
    return Train(backbone, splits(protocol))
