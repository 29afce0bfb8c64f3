"""DCN-V2 (WWW'21): crosses of all fields beside an MLP.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import DCNv2, Train, recipe, splits


@recipe(name="DCNv2", task="ctr", family="baselines", paper="arXiv:2008.13535", requires=("label",))
def dcnv2(backbone=DCNv2(), protocol="ctr"):
    return Train(backbone, splits(protocol))
