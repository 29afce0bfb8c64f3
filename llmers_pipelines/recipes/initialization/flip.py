"""FLIP (RecSys'24): a language model and a CTR model tell each other's masked fields.

The LLM adds: initial weights of the whole CTR model but its last layers. Each training row is a
text and a row of fields; both are aligned as a pair, masked words are told with the help of the
fields, masked fields with the help of the text. No row's own label is read.
Served online: the CTR backbone alone (FLIP_ID of the paper); no LLM.
Deviations: first-order weights are not pretrained; noise values are those of the masked field, by
its frequency, not of all fields; at least one field is masked, padding is not attended to, a
truncation leaves clauses out whole (all three go wrong in the released code); a field that tells a
part of a masked value is masked as well; the text also tells the last liked titles, which the
backbone reads; fine-tuning is the backbone's own, alike for the base. The language model is the
configured encoder: one with a MASK token.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    DCNv2, Derive, FencedRows, FieldAlignment, FromTrunk, Train, Tune, items, recipe, splits,
)  # fmt: skip


@recipe(
    name="FLIP", task="ctr", family="initialization", paper="arXiv:2310.19453", requires=("label",)
)
def flip(
    backbone=DCNv2(), epochs=25, lr=1e-4, batch=128, ratio=0.15, last=5, samples=0, whole=True,
    contrast=1.0, words=1.0, fields=1.0, max_tokens=180, protocol="ctr",
):  # fmt: skip
    log = splits(protocol)
    told = Derive(FencedRows(last=last, samples=samples), log, items)
    how = FieldAlignment(
        backbone=backbone, epochs=epochs, lr=lr, batch=batch, ratio=ratio, whole=whole,
        contrast=contrast, words=words, fields=fields, max_tokens=max_tokens, weight_decay=1e-3,
    )  # fmt: skip
    trunk = Tune(how, told, context=(log,))
    return Train(backbone, log, init=(FromTrunk(source=trunk),))
