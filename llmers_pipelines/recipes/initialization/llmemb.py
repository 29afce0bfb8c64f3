"""LLMEmb (AAAI'25): item vectors of a contrastively tuned encoder, adapted beside a trained model.

The LLM adds: an encoder tuned to tell items by any part of their attributes (two views with a share
of the attributes dropped), its vectors reduced by PCA to ``pca`` values.
Served online: the sequence backbone with folded item tables; no LLM.
Deviations: the default loss of the tuning is normalized InfoNCE, as the paper's text says
(``loss="soft_target"`` is the released form); targets of a batch are aligned once each; the
backbone keeps its own loss; aligned with is a SASRec, the base itself where that is one. The
encoder is the configured one: for the paper's, the folder of a causal model with
``?pooling=mean&normalize=0``. ``alpha=0`` is the adapter over the frozen vectors alone.
Its base is the backbone with a table of ids: vectors in the table's place have no weight.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    PCA, AttributeText, AttributeViews, CollaborativeAlignment, Contrast, Derive, Embed,
    FrozenItems, ItemVectors, Lora, SASRec, Train, Tune, items, recipe, splits,
)  # fmt: skip


@recipe(name="LLMEmb", task="sequential", family="initialization", paper="arXiv:2409.19925")
def llmemb(
    backbone=SASRec(), pca=128, alpha=0.01, tuned=True, loss="info_nce", drop=0.4, epochs=4,
    rank=8, protocol="sequential",
):  # fmt: skip
    log = splits(protocol)
    lora = Lora(rank=rank, alpha=4.0 * rank, dropout=0.1, targets=("all",))
    soft = loss == "soft_target"
    how = Contrast(lora=lora, lr=2e-4, batch=64, epochs=epochs, loss=loss,
                   tau=3.0 if soft else 0.07, learn_tau=soft)  # fmt: skip
    views = Derive(AttributeViews(drop=drop), items)
    vectors = Embed(AttributeText(), over=items, adapter=Tune(how, views) if tuned else None)
    trained = backbone if isinstance(backbone, SASRec) else SASRec(dim=backbone.dim)
    known = Derive(ItemVectors(), Train(trained, log), log)
    return Train(
        backbone,
        log,
        fuse=(FrozenItems(source=Derive(PCA(dim=pca), vectors)),),
        aux=(CollaborativeAlignment(source=known, weight=alpha),),
    )
