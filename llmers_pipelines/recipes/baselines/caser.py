"""Caser (WSDM'18): convolutions over the newest items.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import Caser, Train, recipe, splits


@recipe(name="Caser", task="sequential", family="baselines", paper="arXiv:1809.07426")
def caser(backbone=Caser(), protocol="sequential"):
    return Train(backbone, splits(protocol))
