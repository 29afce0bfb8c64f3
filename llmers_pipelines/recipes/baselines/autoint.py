"""AutoInt+ (CIKM'19): self-attention over fields beside an MLP.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import AutoInt, Train, recipe, splits


@recipe(
    name="AutoInt", task="ctr", family="baselines", paper="arXiv:1810.11921", requires=("label",)
)
def autoint(backbone=AutoInt(), protocol="ctr"):
    return Train(backbone, splits(protocol))
