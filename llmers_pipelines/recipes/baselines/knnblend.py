"""ItemKNN and text-kNN blended; the weight is chosen on validation. The fixed reference.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import Embed, ItemText, KNNBlend, Train, items, recipe, splits


@recipe(name="KNN-blend", task="sequential", family="baselines")
def knnblend(protocol="sequential"):
    return Train(KNNBlend(vectors=Embed(ItemText(), over=items)), splits(protocol))
