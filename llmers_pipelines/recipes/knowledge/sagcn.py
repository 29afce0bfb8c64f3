"""SAGCN (TOIS): a language model finds the aspects that reviews speak of; one graph per aspect.

The LLM adds: from samples of training reviews the words for aspects, merged to the most frequent;
then, per training review, the part that speaks of each of them.
Served online: the graph backbone with the aspects' views in its item table and one table of users;
no LLM.
Deviations: the backbone's graph of all training rows is a view of its own, so that the base is the
method without aspects (``implicit=False`` is the aspects alone); stems and given synonyms merge
words; no dropout on aspect graphs (the released one cannot run); the backbone's own loss and
optimizer. ``source="items"``, for catalogs without reviews, asks per item instead of per review: an
item's aspects then hold for all of its edges.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    AspectViews, AspectVocabulary, AspectWords, Derive, Generate, ItemAspectEdges, ItemAspects,
    LightGCN, PlanError, ReviewAspectEdges, ReviewAspects, ReviewQuestions, ReviewSamples, Train,
    TrainingReviews, items, recipe, reviews, splits,
)  # fmt: skip


@recipe(name="SAGCN", task="collaborative", family="knowledge", paper="arXiv:2312.16275")
def sagcn(
    backbone=LightGCN(), source="reviews", aspects=8, layers=3, how="concat", implicit=True,
    protocol="collaborative",
):  # fmt: skip
    log, words = splits(protocol), AspectVocabulary(keep=aspects)
    if source not in ("items", "reviews"):
        raise PlanError(f"source is {source!r}; use 'items' or 'reviews'")
    if source == "items":
        said = Generate(ItemAspects(), over=items)
        vocabulary = Derive(words, said)
        edges = Derive(ItemAspectEdges(words=words), vocabulary, said, log)
    else:
        own = Derive(TrainingReviews(), log, reviews)
        named = Generate(AspectWords(), over=Derive(ReviewSamples(), own), context=(log,))
        asked = Derive(ReviewQuestions(), Derive(words, named), own)
        said = Generate(ReviewAspects(), over=asked, context=(log,))
        edges = Derive(ReviewAspectEdges(), said, asked, log)
    views = AspectViews(edges=edges, layers=layers, how=how, implicit=implicit)
    return Train(backbone, log, fuse=(views,))
