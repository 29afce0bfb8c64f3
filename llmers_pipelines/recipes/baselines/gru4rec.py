"""GRU4Rec (ICLR'16) with full cross-entropy: gated recurrent units over the history.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import GRU4Rec, Train, recipe, splits


@recipe(name="GRU4Rec", task="sequential", family="baselines", paper="arXiv:1511.06939")
def gru4rec(backbone=GRU4Rec(), protocol="sequential"):
    return Train(backbone, splits(protocol))
