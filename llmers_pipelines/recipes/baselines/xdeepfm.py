"""xDeepFM (KDD'18): compressed interaction network, linear part and MLP.

Served online: itself.
"""

from __future__ import annotations

from llmers_pipelines.api import Train, XDeepFM, recipe, splits


@recipe(
    name="xDeepFM", task="ctr", family="baselines", paper="arXiv:1803.05170", requires=("label",)
)
def xdeepfm(backbone=XDeepFM(), protocol="ctr"):
    return Train(backbone, splits(protocol))
