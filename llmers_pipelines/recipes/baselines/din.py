"""DIN (KDD'18): attention of the candidate over the history.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import DIN, Train, recipe, splits


@recipe(name="DIN", task="ctr", family="baselines", paper="arXiv:1706.06978", requires=("label",))
def din(backbone=DIN(), protocol="ctr"):
    return Train(backbone, splits(protocol))
