"""CFKG (2018): choosing an item as one more relation of a knowledge graph.

Served online: itself; facts are folded into plain tables of users and items.
"""

from __future__ import annotations

from llmers_pipelines.api import CFKG, Train, knowledge, knowledge_links, recipe, splits


@recipe(name="CFKG", task="sequential", family="baselines", paper="arXiv:1805.03352")
def cfkg(backbone=CFKG(kg=knowledge, link=knowledge_links), protocol="sequential"):
    return Train(backbone, splits(protocol))
