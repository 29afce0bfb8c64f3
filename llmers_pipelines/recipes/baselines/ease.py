"""EASE (WWW'19): ridge regression with a zero diagonal, in closed form.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import EASE, Train, recipe, splits


@recipe(name="EASE", task="sequential", family="baselines", paper="arXiv:1905.03375")
def ease(backbone=EASE(), protocol="sequential"):
    return Train(backbone, splits(protocol))
