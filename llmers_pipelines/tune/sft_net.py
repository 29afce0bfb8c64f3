"""Supervised fine-tuning at work. Shapes: B examples, L tokens, V vocabulary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..llm.batching import batches
from ..llm.hf_guard import ControlGuard
from ..llm.hf_tokens import load_tokenizer, prompt_ids
from ..llm.neutral import neutral_message, neutralize, tokenizer_marks
from .lora_net import attach, quiet
from .tuner import Base, TuneError, Tuner

IGNORED = -100


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of ``-log P(label)`` in nats over labels that are not ``IGNORED``.

    logits (B, L, V) at position t speak of labels (B, L) at position t + 1.
    """
    told = logits[:, :-1].flatten(0, 1).float()
    return F.cross_entropy(told, labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum")


class Tokens:
    """Turns examples into token ids as the engine would read them."""

    def __init__(self, folder: Any, max_tokens: int) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.marks = tokenizer_marks(folder)
        self.guard = ControlGuard(self.tokenizer, self.marks)
        self.max_tokens = max_tokens
        self.cut = 0  # examples whose prompt was cut

    def __call__(self, name: str, prompt: str, answer: Sequence[str]) -> tuple[list[int], int]:
        """Return (token ids, how many of them are the prompt's).

        Special tokens that a text spells are broken, as in every request.
        """
        messages = [neutral_message(m, self.marks) for m in json.loads(prompt)]
        ids = prompt_ids(self.tokenizer, messages)
        try:
            self.guard.check(messages, ids)
        except ValueError as error:
            raise TuneError(f"example {name!r}: {error}") from error
        told = [t for piece in answer
                for t in self.tokenizer(neutralize(piece, self.marks),
                                        add_special_tokens=False)["input_ids"]]  # fmt: skip
        if not told:
            raise TuneError(f"example {name!r}: the answer is empty; leave such rows out")
        told.append(self.tokenizer.eos_token_id)
        room = self.max_tokens - len(told)
        if room < 1:
            raise TuneError(
                f"example {name!r}: its answer has {len(told)} tokens, max_tokens is "
                f"{self.max_tokens}; raise it or leave the row out"
            )
        self.cut += len(ids) > room
        ids = ids[-room:]
        return [*ids, *told], len(ids)


class SftTask:
    """Answers of examples under a causal model with an adapter."""

    def __init__(self, how: Tuner, base: Base, examples: Any) -> None:
        from transformers import AutoModelForCausalLM

        quiet()
        own = Tokens(base.folder, how.max_tokens)
        if own.tokenizer.eos_token_id is None:
            raise TuneError(f"{base.folder}: the tokenizer has no end token to learn to stop at")
        columns = (examples[c].to_pylist() for c in ("example_id", "prompt", "answer"))
        made = [own(*row) for row in zip(*columns, strict=True)]
        self.ids = [ids for ids, _ in made]
        self.prompts = [n for _, n in made]
        self.size, self.cut, self.pad = len(made), own.cut, own.tokenizer.pad_token_id
        model = AutoModelForCausalLM.from_pretrained(
            base.folder, dtype=getattr(torch, base.dtype), use_safetensors=True,
            trust_remote_code=False,
        )  # fmt: skip
        self.module: Any = attach(model, how.lora, seed=how.seed, causal=True).to(base.device)
        self.budget, self.device = base.tokens, base.device

    @property
    def facts(self) -> dict[str, Any]:
        told = sum(map(len, self.ids)) - sum(self.prompts)
        return {"prompt_tokens": sum(self.prompts), "answer_tokens": told, "cut": self.cut}

    def backward(self, rows: np.ndarray, epoch: int) -> float:
        """Add the gradients of the mean over the answer tokens of ``rows``; return that mean."""
        total = sum(len(self.ids[r]) - self.prompts[r] for r in rows)
        loss = 0.0
        sized = sorted(((len(self.ids[r]), int(r)) for r in rows), key=lambda s: (-s[0], s[1]))
        # Parts of a batch are as large as the device holds; their sums add up to the batch's.
        for part in batches(sized, self.budget, len(rows)):
            ids, mask, labels = self._padded(part)
            logits = self.module(input_ids=ids, attention_mask=mask, use_cache=False).logits
            share = answer_loss(logits, labels) / total
            share.backward()
            loss += float(share.detach())
        return loss

    def _padded(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return (ids, mask, labels), each int64 (B, L), padded on the right."""
        width = max(len(self.ids[r]) for r in rows)
        ids = torch.full((len(rows), width), self.pad)
        labels = torch.full((len(rows), width), IGNORED)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for place, row in enumerate(rows):
            own = torch.tensor(self.ids[row])
            ids[place, : len(own)], mask[place, : len(own)] = own, 1
            labels[place, self.prompts[row] : len(own)] = own[self.prompts[row] :]
        return ids.to(self.device), mask.to(self.device), labels.to(self.device)
