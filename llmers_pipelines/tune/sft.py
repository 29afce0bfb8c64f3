"""Supervised fine-tuning of a causal language model: prompts in, answers to learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .tuner import Base, Tuner

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Sft(Tuner):
    """``L = -(1/T) sum_t log P(r_t | p, r_<t)`` over the T answer tokens of a batch.

    Examples have ``prompt`` (chat messages as JSON, written by the model's own template) and
    ``answer`` (a list of pieces). Pieces are tokenized one by one, so that an answer that is begun
    for the model (a message of the assistant at the end of a prompt) has the token ids that it was
    trained on. Prompt tokens are masked out of the loss; the end token belongs to the answer. An
    example is never packed with another one. Where it is longer than ``max_tokens``, its prompt is
    cut at the front; an answer that does not fit alone is an error.
    """

    base: ClassVar[Literal["llm", "encoder"]] = "llm"
    columns: ClassVar[tuple[str, ...]] = ("prompt", "answer")

    def objective(self, base: Base, examples: pa.Table) -> Any:
        from .sft_net import SftTask

        return SftTask(self, base, examples)
