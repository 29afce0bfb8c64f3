"""SASRec (ICDM'18) with full cross-entropy: causal self-attention over the history.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import SASRec, Train, recipe, splits


@recipe(name="SASRec", task="sequential", family="baselines", paper="arXiv:1808.09781")
def sasrec(backbone=SASRec(), protocol="sequential"):
    return Train(backbone, splits(protocol))
