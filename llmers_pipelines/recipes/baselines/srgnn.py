"""SR-GNN (AAAI'19): gated steps on the graph of a session.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import SRGNN, Train, recipe, splits


@recipe(name="SR-GNN", task="sequential", family="baselines", paper="arXiv:1811.00855")
def srgnn(backbone=SRGNN(), protocol="sequential"):
    return Train(backbone, splits(protocol))
