"""HICF (KDD'22), which is HGCF (WWW'21) with hierarchy-aware margins and informative negatives:
graph convolution on a hyperboloid, ``adaptive=False, negatives=1`` is HGCF itself.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import HGCF, Train, recipe, splits


@recipe(name="HICF", task="collaborative", family="baselines", paper="arXiv:2207.09051")
def hgcf(backbone=HGCF(), protocol="collaborative"):
    return Train(backbone, splits(protocol))
