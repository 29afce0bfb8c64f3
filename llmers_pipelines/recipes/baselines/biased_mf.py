"""Biased matrix factorization (Computer 2009): ratings from means, biases and an inner product.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import BiasedMF, Train, recipe, splits


@recipe(
    name="BiasedMF", task="rating", family="baselines", paper="doi:10.1109/MC.2009.263",
    requires=("rating",),
)  # fmt: skip
def biased_mf(backbone=BiasedMF(), protocol="rating"):
    return Train(backbone, splits(protocol))
