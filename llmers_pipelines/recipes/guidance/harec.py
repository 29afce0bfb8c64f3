"""HaRec / HERec (arXiv:2411.13865): texts of users and items align a hyperbolic graph recommender.

The LLM adds: a preference text per user from the training history and factual knowledge of each
item; their vectors, drawn to the points of their owners by hyperbolic distance.
Served online: points of users and items, searched by inner product, and a tree over them along
which a request may explore (``temperature``, ``layer``); no LLM.
Deviations: histories tell titles and categories, not the items' texts; seen items are never drawn
when exploring (the released code draws them); models are selected on validation; losses are means
over a batch; no explanations by a profile decoder. Defaults that are not the paper's: the network
over texts learns at 1e-3 (1e-5), 1 negative per pair (50), momentum .9 (.95); see ``HGCF``.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    HGCF, AnswerText, Embed, Generate, HierarchyTree, HyperbolicAlignment, ItemKnowledge, Train,
    UserPreference, items, recipe, splits, users,
)  # fmt: skip


@recipe(name="HaRec", task="collaborative", family="guidance", paper="arXiv:2411.13865")
def harec(backbone=HGCF(), weight=0.1, rate=1e-3, layers=8, protocol="collaborative"):
    log = splits(protocol)
    taste = Generate(UserPreference(), over=users, context=(log, items))
    told = Generate(ItemKnowledge(), over=items)
    align = HyperbolicAlignment(
        users=Embed(AnswerText(fallback="none"), over=taste),
        items=Embed(AnswerText(fallback="none"), over=told),
        weight=weight,
        rate=rate,
    )
    return Train(backbone, log, fuse=(HierarchyTree(layers=layers),), aux=(align,))
