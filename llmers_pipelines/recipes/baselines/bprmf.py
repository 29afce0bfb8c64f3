"""BPR-MF (UAI'09): matrix factorization with a pairwise loss.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import BPRMF, Train, recipe, splits


@recipe(name="BPR-MF", task="sequential", family="baselines", paper="arXiv:1205.2618")
def bprmf(backbone=BPRMF(), protocol="sequential"):
    return Train(backbone, splits(protocol))
