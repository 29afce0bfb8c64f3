"""LLMInit (2025): selected columns of a text vector become the item table, their means the users.

The LLM adds: one text vector per item; the columns of largest variance over popular items are kept.
Served online: the backbone alone.
Deviations: columns are rescaled to the spread of the backbone's own initialization; the split in
order of time (leave one out) replaces the random order of the released configuration. Its base is
the backbone with a start of its own.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    ColumnSelect, Derive, Embed, FromVectors, ItemText, LightGCN, MeanOfHistory, Train, items,
    recipe, splits,
)  # fmt: skip


@recipe(name="LLMInit", task="sequential", family="initialization", paper="arXiv:2503.01814")
def llm_init(backbone=LightGCN(), select="var", scale="match", protocol="sequential"):
    log = splits(protocol)
    vectors = Embed(ItemText(), over=items)
    columns = Derive(ColumnSelect(dim=backbone.dim, how=select), vectors, log)
    init = (FromVectors("item", columns, scale=scale),)
    if "user_table" in backbone.seams:
        init += (MeanOfHistory(),)
    return Train(backbone, log, init=init)
