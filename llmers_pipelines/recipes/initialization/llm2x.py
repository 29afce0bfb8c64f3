"""LLM2X (Harte et al., RecSys'23): a conventional model whose item table starts from text vectors.

The LLM adds: one vector per item, from its plain text or (``source="summary"``) from an LLM's
summary of it (``"pictures"``: of a model that sees its pictures), reduced by PCA to the backbone's
width.
Served online: the backbone alone; nothing remains but its item table.
Deviations: the table is rescaled to the spread of the backbone's own initialization instead of
dividing rows by their L1 norm; base and enhanced have the same width. Its base is the backbone with
a start of its own.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    PCA, AnswerText, Derive, Embed, FromVectors, Generate, ItemKnowledge, ItemSummary, ItemText,
    PicturedItemSummary, SASRec, Train, items, recipe, splits,
)  # fmt: skip


@recipe(
    name="LLM2X", task="sequential", family="initialization", paper="doi:10.1145/3604915.3610639"
)
def llm2x(backbone=SASRec(), source="text", scale="match", protocol="sequential"):
    tasks = {"summary": ItemSummary(), "pictures": PicturedItemSummary(),
             "knowledge": ItemKnowledge()}  # fmt: skip
    task = {"text": None, **tasks}[source]
    if task is None:
        vectors = Embed(ItemText(), over=items)
    else:
        vectors = Embed(AnswerText(), over=Generate(task, over=items), context=(items,))
    reduced = Derive(PCA(dim=backbone.dim), vectors)
    return Train(backbone, splits(protocol), init=(FromVectors("item", reduced, scale=scale),))
