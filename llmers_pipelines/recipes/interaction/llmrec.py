"""LLMRec (WSDM'24): a language model adds interactions, user profiles and item attributes.

The LLM adds: for each user a liked and a disliked item out of the candidates of the pinned baseline
(extra BPR pairs, pruned by loss), a profile text, and an attribute text of each item.
Served online: the graph backbone with folded item tables and one table by item per kind of text
for the users' side; no LLM.
Deviations: numbers of the offered list instead of ids, refused where they are not in it; one
attribute text per item (item knowledge) instead of director, country and language, and no images;
the backbone's own loss and optimizer; losses that are dropped are the largest (denoising; the
released code keeps them: ``keep="hardest"``); masked restoration is on; the released regularizer,
a reciprocal of the norm, is an ordinary L2; no softmax after the last propagation.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    AnswerText, AugmentedPairs, Derive, Embed, Generate, ItemKnowledge, ItemText, LightGCN,
    LikedDisliked, SideFeatures, TopCandidates, Train, UserPreference, items, pinned, recipe,
    splits, users,
)  # fmt: skip


@recipe(name="LLMRec", task="sequential", family="interaction", paper="arXiv:2311.00423")
def llmrec(
    backbone=LightGCN(), candidates=10, share=0.1, drop=0.1, keep="easiest", protocol="sequential"
):
    log = splits(protocol)
    offered = Derive(TopCandidates(n=candidates), pinned(Train(backbone, log)), log)
    chosen = Generate(LikedDisliked(), over=users, context=(log, items, offered))
    profile = Generate(UserPreference(), over=users, context=(log, items))
    knowledge = Generate(ItemKnowledge(), over=items)
    features = SideFeatures(
        text=Embed(ItemText(), over=items),
        profile=Embed(AnswerText(fallback="none"), over=profile),
        attributes=(Embed(AnswerText(fallback="none"), over=knowledge),),
        drop=drop,
        keep=keep,
    )
    pairs = AugmentedPairs(chosen, share=share, drop=drop, keep=keep)
    return Train(backbone, log, fuse=(features,), aux=(pairs,))
