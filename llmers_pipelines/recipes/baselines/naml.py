"""NAML (IJCAI'19): title, body and categories as views of a news.

Served online: its user encoder over a table of news vectors.
"""

from __future__ import annotations

from llmers_pipelines.api import NAML, Train, recipe, splits


@recipe(name="NAML", task="news", family="baselines", paper="arXiv:1907.05576", requires=("label",))
def naml(backbone=NAML(), protocol="news"):
    return Train(backbone, splits(protocol))
