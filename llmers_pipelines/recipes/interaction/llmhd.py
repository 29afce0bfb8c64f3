"""LLMHD (arXiv:2409.10343): a language model tells hard samples from noisy ones.

The LLM adds: in each round a score from 0 to 10 for samples whose loss is high and whose score
moves from epoch to epoch, against a profile of the user; profiles of users whom training is sure to
get wrong are rewritten between the rounds.
Served online: the backbone, trained without the samples that are high in loss and not hard; no LLM.
Deviations: rounds are trainings of their own (train, export statistics, ask, train), no model is
asked inside the training loop; scores of one fixed negative per pair are recorded; ``eps(T)`` grows
linearly in steps; ``floor`` above 0 drops false positives, which the paper's rule would call hard;
prompt-feeding models are pinned. ``variance_share=0``: truncated loss; ``most=0``: the backbone.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    ConfidentErrors, Derive, Generate, HardCandidates, HardSamples, ItemKnowledge, ItemSummary,
    LightGCN, PairTexts, Pin, PreferenceScore, RevisedPreference, SampleMask, Train,
    TrainingStatistics, UserPreference, items, recipe, snake, splits, users,
)  # fmt: skip


@recipe(name="LLMHD", task="collaborative", family="interaction", paper="arXiv:2409.10343")
def llmhd(
    backbone=LightGCN(loss="bpr"), rounds=2, most=0.1, grow=3000, variance_share=0.5, last=5,
    gamma=3, floor=0.0, pairwise=True, summary=False, protocol="collaborative",
):  # fmt: skip
    log, watch = splits(protocol), TrainingStatistics(last=last)
    role = f"{snake(type(backbone).__name__)}__{protocol}"
    about = Generate(ItemSummary() if summary else ItemKnowledge(), over=items)
    profiles = (Generate(UserPreference(), over=users, context=(log, items)),)
    mask = ()
    for n in range(1, rounds + 1):
        seen = Pin(Train(backbone, log, aux=(*mask, watch)), role=f"llmhd_round{n}__{role}")
        if n > 1:
            wrong = Derive(ConfidentErrors(least=gamma, round=n), *profiles, about, seen, log)
            better = Generate(RevisedPreference(version=n), over=wrong, context=(log, items))
            profiles = (*profiles, better)
        chosen = HardCandidates(most, variance_share, pairwise=pairwise, round=n)
        offered = Derive(chosen, seen, log)
        told = Derive(PairTexts(round=n), *profiles, about, offered, log)
        scores = Generate(PreferenceScore(round=n), over=told, context=(log,))
        judged = HardSamples(round=n, rounds=rounds, floor=floor, pairwise=pairwise)
        hard = Derive(judged, scores, offered, log)
        mask = (SampleMask(source=hard, most=most, grow=grow, round=n),)
    return Train(backbone, log, aux=mask)
