"""DIEN (AAAI'19): interests that evolve towards the candidate.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import DIEN, Train, recipe, splits


@recipe(name="DIEN", task="ctr", family="baselines", paper="arXiv:1809.03672", requires=("label",))
def dien(backbone=DIEN(), protocol="ctr"):
    return Train(backbone, splits(protocol))
