"""BERT4Rec (CIKM'19): bidirectional self-attention that fills gaps in a history.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import BERT4Rec, Train, recipe, splits


@recipe(name="BERT4Rec", task="sequential", family="baselines", paper="arXiv:1904.06690")
def bert4rec(backbone=BERT4Rec(), protocol="sequential"):
    return Train(backbone, splits(protocol))
