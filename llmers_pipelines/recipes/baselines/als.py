"""Implicit ALS (ICDM'08, RecSys'22): weighted least squares in closed form.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import ALS, Train, recipe, splits


@recipe(name="iALS", task="sequential", family="baselines", paper="arXiv:2110.14037")
def als(backbone=ALS(), protocol="sequential"):
    return Train(backbone, splits(protocol))
