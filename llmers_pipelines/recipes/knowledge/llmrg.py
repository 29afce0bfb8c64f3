"""LLMRG (AAAI'24): reasons that lead from one item of a history to the next, as graphs of users.

The LLM adds: in rounds over the training history, steps with reasons, a masked fill-in that
verifies each different step once, a score per chain, and titles that might come next.
Served online: the sequence backbone with two rows per user and a fusion matrix; no LLM.
Deviations: rounds of ``block`` rows, each one batch job, instead of one item at a time; a graph
counts for states after its cut alone, so that none is trained on what it tells; the base of
verified steps is read by item pair before the model is asked; agreement of fill-ins is by words,
not by vectors; users' attributes are not told.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    AnswerText, ChainReasoning, Derive, Embed, ExtendChains, FillStep, Generate, GraphTexts,
    KeptChains, NewSteps, ReasoningFusion, ReasoningGraphs, ReasoningRows, SASRec, ScoreChains,
    Train, UserChains, VerifiedSteps, items, recipe, splits,
)  # fmt: skip


@recipe(name="LLMRG", task="sequential", family="knowledge", paper="arXiv:2308.10835")
def llmrg(backbone=SASRec(), rounds=2, block=5, threshold=6, agree=0.6, protocol="sequential"):
    log = splits(protocol)
    base: tuple = ()  # the verified steps so far
    kept, imagined = [], []
    for number in range(1, rounds + 1):
        at = {"round": number, "rounds": rounds, "block": block}
        asked = Derive(ReasoningRows(**at), *base, log, items)
        reasons = Generate(ChainReasoning(round=number), over=asked, context=(log,))
        steps = Derive(NewSteps(**at, agree=agree), reasons, *base, log, items)
        fills = Generate(FillStep(round=number), over=steps, context=(log,))
        base = (Derive(VerifiedSteps(round=number, agree=agree), fills, steps, *base),)
        chains = Derive(UserChains(**at), *base, log, items)
        scores = Generate(ScoreChains(round=number), over=chains, context=(log,))
        kept.append(Derive(KeptChains(threshold=threshold), scores, chains))
        imagined.append(Generate(ExtendChains(round=number), over=kept[-1], context=(log,)))
    graphs = Derive(ReasoningGraphs(), *imagined, *kept, items, log)
    texts = Embed(AnswerText(fallback="none"), over=Derive(GraphTexts(), graphs))
    return Train(backbone, log, fuse=(ReasoningFusion(graphs=graphs, texts=texts),))
