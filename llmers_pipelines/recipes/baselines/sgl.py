"""SGL (SIGIR'21): LightGCN with contrasted views of the graph.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import SGL, Train, recipe, splits


@recipe(name="SGL", task="sequential", family="baselines", paper="arXiv:2010.10783")
def sgl(backbone=SGL(), protocol="sequential"):
    return Train(backbone, splits(protocol))
