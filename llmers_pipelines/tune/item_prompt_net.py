"""Next items under a causal model that reads item vectors. Shapes: B rows, N items, W width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.training import IdMap
from ..llm.hf_soft import SoftPrompt
from ..llm.hf_tokens import load_tokenizer
from .item_prompt import ItemPrompt
from .lora_net import attach, quiet
from .tuner import Base, TuneError

if TYPE_CHECKING:
    from ..data.vectors import VectorTable


class ItemPromptTask:
    """Histories and targets under a causal model with an adapter and two maps."""

    def __init__(
        self, how: ItemPrompt, base: Base, examples: Any, vectors: VectorTable | None = None
    ) -> None:
        from transformers import AutoModelForCausalLM

        quiet()
        if vectors is None or vectors.entity != "item":
            raise TuneError("ItemPrompt reads item vectors: give them to the Tune as its context")
        ids = IdMap(vectors.ids)
        self.device = base.device
        names = examples["example_id"].to_pylist()
        targets = ids.index(examples["target"].to_pylist())
        self.rows = []
        for name, history, target in zip(
            names, examples["history"].to_pylist(), targets, strict=True
        ):
            known = ids.index(list(history or ())[-how.most :])
            known = known[known > 0]
            if not target or not len(known):
                raise TuneError(f"example {name!r}: its history or its target has no item vector")
            self.rows.append(known)
        self.targets = torch.from_numpy(targets).to(base.device)
        self.size = len(self.rows)
        model = AutoModelForCausalLM.from_pretrained(
            base.folder, dtype=getattr(torch, base.dtype), use_safetensors=True,
            trust_remote_code=False,
        )  # fmt: skip
        wrapped: Any = attach(model, how.lora, seed=how.seed, causal=True)
        table = np.concatenate([np.zeros((1, vectors.dim)), vectors.vectors]).astype(np.float32)
        self.table = torch.from_numpy(table).to(base.device)
        with torch.random.fork_rng():
            torch.manual_seed(how.seed)
            tokenizer = load_tokenizer(base.folder)
            self.module = SoftPrompt(wrapped, tokenizer, self.table.cpu(), how.before, how.after)
        self.module.to(base.device)

    @property
    def facts(self) -> dict[str, Any]:
        return {"items": len(self.table) - 1, "width": int(self.table.shape[1])}

    @property
    def heads(self) -> dict[str, Tensor]:
        return self.module.heads()

    def scores(self, rows: np.ndarray) -> Tensor:
        """Return (B, N): of the items as the next one of each example."""
        states = self.module([self.table[self.rows[r]] for r in rows])[-1]
        return self.module.down(states) @ self.table[1:].T

    def backward(self, rows: np.ndarray, epoch: int) -> float:
        """Add the gradients of the mean cross-entropy of ``rows``; return it."""
        loss = F.cross_entropy(self.scores(rows), self.targets[torch.from_numpy(rows)] - 1)
        loss.backward()
        return float(loss.detach())
