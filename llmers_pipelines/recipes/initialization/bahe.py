"""BAHE (SIGIR'24 industry): behaviours in shallow layers, their interplay in deep layers.

The LLM adds: one vector per user and item. Its layers up to k read each distinct behaviour text
once (the configured encoder's ``?layer=k``, stored by text); the layers above, tuned on clicks,
read a user's sequence of such vectors as if they were tokens.
Served online: the CTR backbone with two extra dense fields per row, looked up by id; no LLM.
Deviations: the upper layers are tuned as a stage with a head of its own instead of through the CTR
model, so that they are an asset whose vectors are exported once a run; k is the encoder's setting;
a user's vector comes from rows before the cut (``history`` of the split). ``tuned=False`` is k = K:
the mean of the vectors that the encoder gives.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    DIN, ClickSequences, DeepClicks, DeepStates, Derive, Embed, HistoryPooling, HybridExperts,
    ItemText, Lora, Train, Tune, items, recipe, splits,
)  # fmt: skip


@recipe(
    name="BAHE", task="ctr", family="initialization", paper="arXiv:2403.19347", requires=("label",)
)
def bahe(
    backbone=DIN(), last=50, samples=20_000, epochs=1, lr=1e-4, rank=8, batch=64, tuned=True,
    shared=2, specific=5, out=32, protocol="ctr_time",
):  # fmt: skip
    log = splits(protocol)
    behaviours = Embed(ItemText(), over=items)
    experts = {"shared": shared, "specific": specific, "out": out}
    if not tuned:
        pooled = Derive(HistoryPooling(decay="none", last=last), behaviours, log)
        return Train(backbone, log, fuse=(HybridExperts(user=pooled, item=behaviours, **experts),))
    how = DeepClicks(lora=Lora(rank=rank, alpha=2.0 * rank), lr=lr, batch=batch, epochs=epochs)
    told = Derive(ClickSequences(last=last, samples=samples), log)
    deep = Tune(how, told, context=(behaviours,))
    user, item = (Derive(DeepStates(s, last), deep, behaviours, log) for s in ("user", "item"))
    return Train(backbone, log, fuse=(HybridExperts(user=user, item=item, **experts),))
