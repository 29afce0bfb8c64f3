"""HSTU (ICML'24): pointwise attention with gates.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import HSTU, Train, recipe, splits


@recipe(name="HSTU", task="sequential", family="baselines", paper="arXiv:2402.17152")
def hstu(backbone=HSTU(), protocol="sequential"):
    return Train(backbone, splits(protocol))
