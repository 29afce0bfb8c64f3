"""HLLM (ByteDance 2024): an item LLM and a user LLM tuned together, reduced to item vectors.

The LLM adds: one vector per item, of a causal model that reads the item's text and a learned token,
tuned end to end with a second one that reads item vectors and tells the next (InfoNCE).
Served online: the sequence backbone with folded item tables in the user LLM's place; no LLM.
Deviations: as published the user LLM answers each request; here its place is the backbone's, which
may learn its states besides (``teach``: a weight, with a projector). Both LLMs are the configured
encoder, for the paper's the folder of a causal model with ``?pooling=last&normalize=0``. The
default tunes adapters (published: all weights, ``full=True``). Negatives of a batch are any items,
also what a user knows. ``use="init"`` starts the id table from PCA of the vectors. ``tuned=False``:
the encoder as it is. Off is the backbone alone: ``FrozenItems`` has no weight.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    PCA, AttributeText, Derive, Distill, Embed, FromVectors, FrozenItems, HistoryWindows, ItemTexts,
    LanguageModelStates, LayerDistillation, Lora, NextItemContrast, PlanError, SASRec, Teach, Train,
    Tune, items, recipe, splits,
)  # fmt: skip


@recipe(name="HLLM", task="sequential", family="initialization", paper="arXiv:2409.12740")
def hllm(
    backbone=SASRec(), use="replace", teach=0.0, tuned=True, full=False, rank=8, token=True,
    negatives=512, length=10, newest=0, epochs=5, lr=1e-4, batch=16, recompute=False,
    same=0.99, protocol="sequential",
):  # fmt: skip
    if use not in ("replace", "init") or (teach and not tuned):
        raise PlanError(f"{use=}, {teach=}, {tuned=}: use 'replace' or 'init'; teach needs tuned")
    log = splits(protocol)
    text = AttributeText(most=1000, instruction="Compress the following item into its embedding:")
    how = NextItemContrast(lora=Lora(rank=rank, alpha=2.0 * rank, targets=("all",)), lr=lr,
                           batch=batch, epochs=epochs, most=length, negatives=negatives,
                           token=token, full=full, recompute=recompute, same=same)  # fmt: skip
    told = Derive(HistoryWindows(length, newest), log)
    models = Tune(how, told, context=(Derive(ItemTexts(text), items),)) if tuned else None
    vectors = Embed(text, over=items, adapter=models)
    start = FromVectors("item", Derive(PCA(dim=backbone.dim), vectors))
    init, fuse = ((start,), ()) if use == "init" else ((), (FrozenItems(source=vectors),))
    if models is None or not teach:
        return Train(backbone, log, init=init, fuse=fuse)
    states = Teach(LanguageModelStates(blocks=1, newest=1), log, (models, vectors))
    last = LayerDistillation(teacher=states, blocks=1, weight=teach, norm_weight=0.1 * teach)
    return Distill(backbone, log, init=init, fuse=fuse, aux=(last,))
