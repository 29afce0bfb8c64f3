"""ComiRec-SA (KDD'20): several interests per user by self-attention.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import ComiRec, Train, recipe, splits


@recipe(name="ComiRec", task="sequential", family="baselines", paper="arXiv:2005.09347")
def comirec(backbone=ComiRec(), protocol="sequential"):
    return Train(backbone, splits(protocol))
