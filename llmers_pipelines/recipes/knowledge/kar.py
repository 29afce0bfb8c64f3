"""KAR (RecSys'24), open-world knowledge for CTR models.

The LLM adds: a factor-wise reasoning of each user's preference and factual knowledge of each item.
Served online: the CTR backbone with two extra dense fields per row, looked up by id; no LLM.
Deviations: samples are split by time or by a given split instead of by user; an id without an
answer gets a learned default vector and a mask bit instead of being dropped.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    DIN, AnswerText, Embed, Generate, HybridExperts, ItemKnowledge, Train, UserPreference,
    items, recipe, splits, users,
)  # fmt: skip


@recipe(name="KAR", task="ctr", family="knowledge", paper="arXiv:2306.10933", requires=("label",))
def kar(backbone=DIN(), shared=2, specific=5, out=32, protocol="ctr"):
    log = splits(protocol)
    preference = Generate(UserPreference(), over=users, context=(log, items))
    knowledge = Generate(ItemKnowledge(), over=items)
    return Train(
        backbone,
        log,
        fuse=(
            HybridExperts(
                user=Embed(AnswerText(fallback="none"), over=preference),
                item=Embed(AnswerText(fallback="none"), over=knowledge),
                shared=shared,
                specific=specific,
                out=out,
            ),
        ),
    )
