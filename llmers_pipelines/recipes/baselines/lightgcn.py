"""LightGCN (SIGIR'20): linear propagation on the user-item graph.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import LightGCN, Train, recipe, splits


@recipe(name="LightGCN", task="sequential", family="baselines", paper="arXiv:2002.02126")
def lightgcn(backbone=LightGCN(), protocol="sequential"):
    return Train(backbone, splits(protocol))
