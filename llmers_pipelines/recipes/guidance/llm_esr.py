"""LLM-ESR (NeurIPS'24): a semantic view beside the id view, and self-distillation for tail users.

The LLM adds: text vectors of items and of users' histories.
Served online: the sequence backbone with folded item tables; no LLM.
Deviations: a causal mask in the cross-attention (the released code leaks targets) and a residual
around it (``residual=False`` is the released form: a state then no longer knows which item stands
at its own position, and on amazon_office the model falls behind its backbone); a user is taken out
of the own neighbours by id, not by rank; neighbours' states are refreshed once per epoch; the
backbone's own loss. Its base is the backbone alone: two views have no weight that takes one away.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    PCA, Derive, DualView, Embed, FromVectors, HistoryText, ItemText, NearestNeighbours,
    NeighbourDistillation, SASRec, Train, items, recipe, splits, users,
)  # fmt: skip


@recipe(name="LLM-ESR", task="sequential", family="guidance", paper="arXiv:2405.20646")
def llm_esr(
    backbone=SASRec(), neighbours=10, alpha=0.1, residual=True, protocol="sequential"
):
    log = splits(protocol)
    item_vec = Embed(ItemText(), over=items)
    user_vec = Embed(HistoryText(), over=users, context=(log, items))
    similar = Derive(NearestNeighbours(k=neighbours), user_vec)
    return Train(
        backbone,
        log,
        init=(FromVectors("item", Derive(PCA(dim=backbone.dim), item_vec)),),
        fuse=(DualView(source=item_vec, residual=residual),),
        aux=(NeighbourDistillation(similar=similar, n=neighbours, weight=alpha),),
    )
