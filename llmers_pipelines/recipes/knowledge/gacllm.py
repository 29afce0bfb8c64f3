"""GaCLLM (arXiv'24): a language model rewrites users and items from their neighbours, hop by hop.

The LLM adds: in round l a description of each user and item, made of its own of round l - 1 and of
those of sampled neighbours in the training graph; L (N_u + N_i) questions in all. ``tuned``: tuned
beforehand on matched texts, with a low-rank adapter.
Served online: the graph backbone with the texts in its item table and one table of users; no LLM.
Deviations: users have no text before round 1 (``user_fields`` names columns to tell); who has none
in a round takes the mean of the vectors of the items met; fusion and alignment, which the abstract
leaves open, are settings; scores stay dot products; the backbone's own loss and optimizer.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    AnswerText, Derive, Embed, Generate, ItemText, LayerTexts, LightGCN, Lora, MatchedTexts,
    Neighbourhood, RawTexts, RewriteItem, RewriteUser, Sft, Train, Tune, items, recipe, splits,
    users,
)  # fmt: skip


@recipe(name="GaCLLM", task="sequential", family="knowledge", paper="arXiv:2402.08859")
def gacllm(
    backbone=LightGCN(), rounds=2, neighbours=8, how="concat", alignment=0.1, user_fields=(),
    tuned=False, examples=10_000, epochs=3, batch=16, lr=1e-4, rank=8, protocol="sequential",
):  # fmt: skip
    log, over = splits(protocol), {"user": users, "item": items}
    fields, text = {"user": tuple(user_fields), "item": ()}, AnswerText(fallback="none")
    raw = tuple(Derive(RawTexts(side=s, fields=fields[s]), log, over[s]) for s in over)
    matched = Derive(MatchedTexts(examples=examples), *raw, log)
    how_tuned = Sft(lora=Lora(rank=rank, alpha=2.0 * rank), lr=lr, batch=batch, epochs=epochs)
    adapter = Tune(how_tuned, matched) if tuned else None
    told: dict = {}  # the answers of the round before, by side
    own_text = [Embed(text, over=raw[0])] if user_fields else []
    vec = {"user": own_text, "item": [Embed(ItemText(), over=items)]}
    for number in range(1, rounds + 1):
        asked = {}
        for side, task in (("user", RewriteUser), ("item", RewriteItem)):
            own = (told[side], *(t for s, t in told.items() if s != side)) if told else ()
            seen = Derive(Neighbourhood(side=side, round=number, n=neighbours), *own, *raw, log)
            asked[side] = Generate(task(round=number), over=over[side],
                                   context=(seen, log, items), adapter=adapter)  # fmt: skip
            vec[side].append(Embed(text, over=asked[side]))
        told = asked
    texts = LayerTexts(tuple(vec["item"]), tuple(vec["user"]), how=how, weight=alignment)
    return Train(backbone, log, fuse=(texts,))
