"""LLM-InS / ColdLLM (WSDM'25): a language model simulates interactions of cold items.

The LLM adds: training edges of items that nobody has met. Towers over its hidden states and over
collaborative vectors find users for each cold item; the model, tuned on warm pairs, says how likely
each of them would choose it.
Served online: the collaborative backbone, in which cold items have trained vectors; no LLM.
Deviations: Yes against No by likelihood instead of a written answer; hidden states are those of the
configured encoder (for the paper's: the folder of a causal model with
``?pooling=last&normalize=0``); the collaborative tower reads the same item texts; epochs of the
towers are fixed, no held-out row chooses them. ``update=True`` starts its tables from the vectors
by which the model that knows no cold item scores (on a graph they were propagated, and will be once
more), and goes on; the default trains anew.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    AddedRows, Derive, Embed, FilteredUsers, FromVectors, HistoryText, ItemText, ItemVectors,
    LightGCN, Lora, PairJudge, PreferenceExamples, Sft, SimulatedEdges, Teach, Train, Tune,
    UserVectors, WouldLike, items, pinned, recipe, splits, users,
)  # fmt: skip


@recipe(name="LLM-InS", task="collaborative", family="interaction", paper="arXiv:2402.09176")
def llm_ins(
    backbone=LightGCN(), k=20, dim=200, tower_epochs=30, shown=20, samples=3000, epochs=1,
    rank=8, lr=1e-4, least=0.5, most=20, update=False, protocol="collaborative_cold",
):  # fmt: skip
    log, asked = splits(protocol), WouldLike(shown)
    base = pinned(Train(backbone, log))
    known = [Derive(how, base, log) for how in (UserVectors(), ItemVectors())]
    texts = (Embed(HistoryText(), over=users, context=(log, items)), Embed(ItemText(), over=items))
    towers = FilteredUsers(k=k, dim=dim, epochs=tower_epochs)
    lora = Lora(rank=rank, alpha=2.0 * rank, targets=("q_proj", "v_proj"))
    told = Derive(PreferenceExamples(prompt=asked, samples=samples), items, log)
    judged = Teach(
        PairJudge(prompt=asked), log, (items, Derive(towers, *texts, *known, log)),
        adapter=Tune(Sft(lora=lora, lr=lr, epochs=epochs), told),
    )  # fmt: skip
    edges = Derive(SimulatedEdges(least=least, most=most), judged, log)
    start = zip(("user", "item"), known, strict=True)
    init = tuple(FromVectors(side, node, scale=1.0) for side, node in start) if update else ()
    return Train(backbone, log, init=init, aux=(AddedRows(source=edges),))
