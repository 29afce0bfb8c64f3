"""FiBiNET (RecSys'19): SENET-weighted fields and bilinear pairs.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import FiBiNET, Train, recipe, splits


@recipe(
    name="FiBiNET", task="ctr", family="baselines", paper="arXiv:1905.09433", requires=("label",)
)
def fibinet(backbone=FiBiNET(), protocol="ctr"):
    return Train(backbone, splits(protocol))
