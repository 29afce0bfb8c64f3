"""SLIM (WWW'24): a small model, taught by a large one, writes why each user chooses.

The LLM adds: a rationale per user in three steps (preferences, categories, suggestions). A teacher
(the configured engine, or recorded answers) writes it for a sample of users, a small student
(``[tune] model``) is tuned on these and writes for all; texts of users and items become vectors.
Served online: the sequence backbone with a table by user and folded item tables; no LLM. With
``mode="text"`` no id is read, and any item with a text is scored.
Deviations: a rationale reads the oldest ``share`` of a user's training rows and is shown to the
targets behind that cut alone; the maps start near the backbone; ``student=False`` takes the
teacher's texts for all users.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    AnswerPairs, AnswerText, Derive, Embed, Generate, ItemText, Lora, RationaleFusion,
    SampledUsers, SASRec, Sft, Train, Tune, UserRationale, items, recipe, splits, users,
)  # fmt: skip


@recipe(name="SLIM", task="sequential", family="knowledge", paper="arXiv:2403.04260")
def slim(
    backbone=SASRec(), mode="id", student=True, sample=500, share=0.7, epochs=3, batch=16, lr=1e-4,
    rank=8, tokens=300, protocol="sequential",
):  # fmt: skip
    log = splits(protocol)
    seen = (log, items)
    ask = UserRationale(share=share)
    if student:
        brief = UserRationale(share=share, brief=True, max_tokens=tokens)
        taught = Generate(ask, over=Derive(SampledUsers(sample), users, log), context=seen)
        how = Sft(lora=Lora(rank=rank, targets=("all",)), lr=lr, batch=batch, epochs=epochs)
        tuned = Tune(how, Derive(AnswerPairs(brief), taught, items, log))
        said = Generate(brief, over=users, context=seen, adapter=tuned)
    else:
        said = Generate(ask, over=users, context=seen)
    user_vec = Embed(AnswerText(fallback="none"), over=said)
    item_vec = Embed(ItemText(), over=items)
    fusion = RationaleFusion(items=item_vec, users=user_vec, mode=mode, share=share)
    return Train(backbone, log, fuse=(fusion,))
