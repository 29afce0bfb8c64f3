"""SLMRec (ICLR'25): a shallow decoder learns a tuned language model's states, layer by layer.

The LLM adds: hidden states after training positions, of a causal model that was tuned (LoRA) to
tell the next item from item vectors among the words of a prompt.
Served online: a small transformer over two folded item tables; no LLM.
Deviations: the student is SASRec's decoder with projectors to the teacher's width, not the first
layers of the language model itself; the teacher's states are exported before the student trains
(no joint training, no distillation of logits) and of the ``newest`` positions of each user (it is
tuned on the ``told`` newest ones, 0 = all); its position is its last prompt token, as in the paper.
Layers end at ``k (layers // blocks)`` for states and for heads alike; the released code counts
heads by the number of hidden states. Its base is the student's backbone with a table of ids, alone:
frozen vectors in the table's place have no weight.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    DeepSupervision, Derive, Distill, HistoryExamples, ItemPrompt, ItemVectors,
    LanguageModelStates, LayerDistillation, Lora, ProjectedItems, SASRec, Teach, Train, Tune,
    recipe, splits,
)  # fmt: skip


@recipe(name="SLMRec", task="sequential", family="distillation", paper="arXiv:2405.17890")
def slmrec(
    backbone=SASRec(layers=4), blocks=4, weight=1.0, deep=1.0, newest=1, epochs=1, rank=16,
    told=0, protocol="sequential",
):  # fmt: skip
    log = splits(protocol)
    known = Derive(ItemVectors(), Train(SASRec(dim=backbone.dim, fit=backbone.fit), log), log)
    how = ItemPrompt(lora=Lora(rank=rank, alpha=16.0, targets=("all",)), lr=3e-4, batch=128,
                     epochs=epochs, schedule="cosine")  # fmt: skip
    teacher = Tune(how, Derive(HistoryExamples(newest=told), log), context=(known,))
    states = Teach(LanguageModelStates(blocks=blocks, newest=newest), log, (teacher, known))
    return Distill(
        backbone,
        log,
        fuse=(ProjectedItems(source=known),),
        aux=(
            LayerDistillation(
                teacher=states, blocks=blocks, weight=weight, norm_weight=0.1 * weight
            ),
            DeepSupervision(source=known, blocks=blocks, weight=deep),
        ),
    )
