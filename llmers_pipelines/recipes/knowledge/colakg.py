"""CoLaKG (SIGIR'25): a language model reads each item's neighbourhood in a knowledge graph.

The LLM adds: a paragraph per item, from its triples and from the items that share them, and a
preference text per user from the training history; their vectors, and the items near in meaning.
Served online: the graph backbone's folded tables; no LLM.
Deviations: sentence vectors of the configured encoder instead of SimCSE; vectors are centred and
brought to unit scale; the backbone's own loss and optimizer; negatives' projected rows are not
penalized; histories tell titles and categories.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    AnswerText, Derive, Embed, Generate, ItemComprehension, ItemFacts, LightGCN,
    NearestNeighbours, SemanticGraph, Train, UserPreference, items, knowledge, knowledge_links,
    recipe, splits, users,
)  # fmt: skip


@recipe(name="CoLaKG", task="collaborative", family="knowledge", paper="arXiv:2410.12229")
def colakg(
    backbone=LightGCN(), neighbours=10, profiles=True, dropout=0.6, protocol="collaborative"
):
    log = splits(protocol)
    facts = Derive(ItemFacts(), knowledge, knowledge_links)
    told = Generate(ItemComprehension(), over=items, context=(facts,))
    vectors = Embed(AnswerText(), over=told, context=(items,))
    taste = Generate(UserPreference(words=100), over=users, context=(log, items))
    part = SemanticGraph(
        items=vectors,
        users=Embed(AnswerText(fallback="none"), over=taste) if profiles else None,
        neighbours=Derive(NearestNeighbours(k=neighbours), vectors),
        dropout=dropout,
    )
    return Train(backbone, log, fuse=(part,))
