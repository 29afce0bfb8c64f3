"""DeepFM (IJCAI'17): factorization machine and deep part over shared embeddings.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import DeepFM, Train, recipe, splits


@recipe(
    name="DeepFM", task="ctr", family="baselines", paper="arXiv:1703.04247", requires=("label",)
)
def deepfm(backbone=DeepFM(), protocol="ctr"):
    return Train(backbone, splits(protocol))
