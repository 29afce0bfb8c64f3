"""DLLM2Rec (RecSys'24): a student learns a teacher's rankings and its items' text vectors.

The LLM adds: with ``teacher="llm"`` a ranking of candidates after training positions, with "file"
rankings that an LLM wrote elsewhere; and one text vector per item in every form. The default
teacher is a larger SASRec on the same split, no language model; "text" is one that starts from the
text vectors.
Served online: the sequence backbone with a folded input table; no LLM.
Deviations: the backbone's own loss, full cross-entropy, without DROS; the adapted text vectors
start with the spread of the item table; a distance of a trained teacher is -ln of its probability.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    Distill, Embed, ItemText, RankingDistillation, SASRec, TextOffset, items, rankings, recipe,
    splits,
)  # fmt: skip


@recipe(name="DLLM2Rec", task="sequential", family="distillation", paper="arXiv:2405.00338")
def dllm2rec(
    backbone=SASRec(), teacher="larger", teacher_dim=256, k=10, weight=0.8, offset=0.2, loss="bce",
    protocol="sequential",
):  # fmt: skip
    log = splits(protocol)
    vectors = Embed(ItemText(), over=items)
    ranked = rankings(teacher, log, k=k, dim=teacher_dim, vectors=vectors)
    return Distill(
        backbone,
        log,
        fuse=(TextOffset(source=vectors, weight=offset),),
        aux=(RankingDistillation(teacher=ranked, k=k, weight=weight, loss=loss),),
    )
