"""DLRM (2019): inner products of dense features and field embeddings.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import DLRM, Train, recipe, splits


@recipe(name="DLRM", task="ctr", family="baselines", paper="arXiv:1906.00091", requires=("label",))
def dlrm(backbone=DLRM(), protocol="ctr"):
    return Train(backbone, splits(protocol))
