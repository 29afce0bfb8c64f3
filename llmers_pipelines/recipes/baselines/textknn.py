"""Text-kNN: cosine of text vectors to the history, no training at all.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import Embed, ItemText, TextKNN, Train, items, recipe, splits


@recipe(name="Text-kNN", task="sequential", family="baselines")
def textknn(protocol="sequential"):
    return Train(TextKNN(vectors=Embed(ItemText(), over=items)), splits(protocol))
