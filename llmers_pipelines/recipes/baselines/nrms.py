"""NRMS (EMNLP'19): self-attention over title words and over clicked news.

Served online: its user encoder over a table of news vectors.
"""

from __future__ import annotations

from llmers_pipelines.api import NRMS, Train, recipe, splits


@recipe(
    name="NRMS", task="news", family="baselines", paper="doi:10.18653/v1/D19-1671",
    requires=("label",),
)  # fmt: skip
def nrms(backbone=NRMS(), protocol="news"):
    return Train(backbone, splits(protocol))
