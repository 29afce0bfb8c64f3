"""LLM4DSR (TOIS'25): a tuned language model finds items that are off a user's interest.

The LLM adds: edits of training sequences. It is tuned on histories with one planted stranger, gives
each title the probability of being named as noise, and suggests another title in its place.
Served online: the sequence backbone, trained on the edited log; no LLM, no edited live history.
Deviations: the loss of the tuning counts the answer alone; validation and test histories stay as
they are (the paper cleans them as well); a suggestion that is no title of the catalog goes to the
nearest title by the configured encoder, not by the tuned model's last state; the model is kept that
is best on validation, where the released code looks at the test split.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    AnswerText, Corruptions, Derive, EditedHistory, Embed, Generate, ItemText, Lora, NoiseList,
    NoiseScores, NoisyPositions, Replacement, SASRec, SequenceEdits, Sft, Teach, Train, Tune,
    items, recipe, splits,
)  # fmt: skip


@recipe(name="LLM4DSR", task="sequential", family="interaction", paper="arXiv:2408.08208")
def llm4dsr(
    backbone=SASRec(), window=10, samples=5000, epochs=3, batch=128, lr=1e-4, rank=8,
    percentile=0.6, most=2, protocol="sequential",
):  # fmt: skip
    log = splits(protocol)
    lora = Lora(rank=rank, alpha=2.0 * rank, dropout=0.05, targets=("q_proj", "v_proj"))
    planted = Derive(Corruptions(samples=samples, shown=window), items, log)
    tuned = Tune(Sft(lora=lora, lr=lr, batch=batch, epochs=epochs), planted)
    scores = Teach(NoiseScores(prompt=NoiseList(window)), log, (items,), adapter=tuned)
    noisy = Derive(NoisyPositions(percentile=percentile, most=most), scores, log)
    said = Generate(Replacement(shown=window), over=noisy, context=(log, items), adapter=tuned)
    titles = Embed(ItemText(fields=("title",)), over=items)
    meant = Embed(AnswerText(fallback="none"), over=said)
    edits = Derive(SequenceEdits(), said, noisy, items, titles, meant, log)
    return Train(backbone, log, aux=(EditedHistory(source=edits),))
