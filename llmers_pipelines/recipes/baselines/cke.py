"""CKE (KDD'16): matrix factorization with TransR vectors of the items' entities.

Served online: itself; facts are folded into plain tables of users and items.
"""

from __future__ import annotations

from llmers_pipelines.api import CKE, Train, knowledge, knowledge_links, recipe, splits


@recipe(name="CKE", task="sequential", family="baselines")
def cke(backbone=CKE(kg=knowledge, link=knowledge_links), protocol="sequential"):
    return Train(backbone, splits(protocol))
