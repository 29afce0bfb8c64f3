"""TedRec (CIKM'24): the texts of a history joined to its ids in the frequency domain.

The LLM adds: one text vector per item, frozen, adapted by experts whose offsets differ by position.
Served online: SASRec over a spectral fusion of two tables of items and one of positions; no LLM.
Deviations: the encoder's positions are SASRec's own (a bias per distance); dropout and noise of the
adapter are drawn once per item of a batch, not once per occurrence; the filter starts near the
identity. The fusion mixes later positions into earlier ones, so it is refused on a backbone that
trains every position: the default trains one target after each prefix (``supervise="last"``), by
cosine over tau against the id table alone. Its base is the same backbone without texts.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    Embed, Fit, ItemText, SASRec, SpectralFusion, Train, items, recipe, splits,
)  # fmt: skip

LAST = SASRec(
    supervise="last", head="cosine", layers=2, heads=2,
    fit=Fit(lr=1e-3, batch=512, epochs=100, min_epochs=10, patience=10),
)  # fmt: skip


@recipe(
    name="TedRec", task="sequential", family="utilization", paper="arXiv:2402.18166"
)
def tedrec(backbone=LAST, experts=8, dropout=0.2, protocol="sequential"):
    vectors = Embed(ItemText(), over=items)
    fusion = SpectralFusion(source=vectors, experts=experts, dropout=dropout)
    return Train(backbone, splits(protocol), fuse=(fusion,))
