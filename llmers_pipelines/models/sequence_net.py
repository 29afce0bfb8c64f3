"""What every network over histories shares: seams, loss, folding. Shapes: B batch, L length,
N items, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batches import SequenceBatch
from .hooks_net import extra_losses, overrides
from .losses_net import ItemLoss
from .product_net import Product
from .seams import through


class SequenceNet(nn.Module):
    """Histories to states; an item's score is the dot product of state and item output, or with
    ``tau`` their cosine over tau.

    A subclass sets ``config`` and ``max_len``, calls ``_tables`` before its own layers are drawn
    and ``_start`` after them, and gives ``encode``. ``objective`` is the training loss, full
    cross-entropy unless the settings say otherwise; it is no part of what is served.
    ``user_state`` of a training batch (one with
    targets) gives the states of all positions, (B, L, D), because each is trained; of a scoring
    batch the last one, (B, D). Hooks on it must act on the last axis and let batch.user broadcast
    over positions.
    """

    config: dict[str, Any]
    max_len: int
    # > 0: scores are cos(state, item) / tau; 0: the dot product
    tau: float = 0.0

    def _tables(self, n_items: int, dim: int) -> None:
        self.hooks = nn.ModuleList()
        self.item_table = nn.Embedding(n_items + 1, dim, padding_idx=0)
        self._outputs: Tensor | None = None

    def _start(self, n_items: int, output_dim: int, table_std: float) -> None:
        """Draw the item table; ``output_dim`` > 0 gives the (folded) net an output table."""
        self.output_table = (
            nn.Parameter(torch.zeros(n_items + 1, output_dim)) if output_dim else None
        )
        with torch.no_grad():
            self.item_table.weight.normal_(0, table_std)[0] = 0
        self.objective = ItemLoss()

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return states (B, L, D) of the item vectors x (B, L, D); mask (B, L) is True if real."""
        raise NotImplementedError

    def item_input(self, ids: Tensor) -> Tensor:
        return through(self, "item_input", ids)

    def _item_input(self, ids: Tensor) -> Tensor:
        return self.item_table(ids)

    def item_output(self, ids: Tensor | None = None) -> Tensor:
        """Return (N + 1, D) for all items, or (..., D) for ``ids``."""
        if self._outputs is not None:
            return self._outputs if ids is None else self._outputs[ids]
        return through(self, "item_output", ids)

    def _item_output(self, ids: Tensor | None) -> Tensor:
        table = self.item_table.weight if self.output_table is None else self.output_table
        if self.tau:
            return F.normalize(table if ids is None else F.embedding(ids, table), dim=-1)
        return table if ids is None else F.embedding(ids, table)

    def history(self, batch: SequenceBatch) -> Tensor:
        """Return (B, L, D): the item vectors of the histories, zero where there is no item."""
        return through(self, "history", batch)

    def _history(self, batch: SequenceBatch) -> Tensor:
        return self.item_input(batch.items)

    def hidden_states(self, batch: SequenceBatch) -> Tensor:
        return through(self, "hidden_states", batch)

    def _hidden_states(self, batch: SequenceBatch) -> Tensor:
        return self.encode(self.history(batch), batch.items > 0)

    def user_state(self, batch: SequenceBatch) -> Tensor:
        return through(self, "user_state", batch)

    def _user_state(self, batch: SequenceBatch) -> Tensor:
        states = self.hidden_states(batch)
        if self.tau:
            states = F.normalize(states, dim=-1) / self.tau
        return states[:, -1] if batch.targets is None else states

    def score(self, state: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return (B, N + 1) for all items or (B, K) for ``ids`` (K,); column 0 means nothing."""
        return through(self, "score", state, ids)

    def _score(self, state: Tensor, ids: Tensor | None) -> Tensor:
        return state @ self.item_output(ids).T

    def as_product(self, state: Tensor) -> Product | None:
        """Return the factors of ``score(state)``; None where a hook or subclass scores its way."""
        if overrides(self, "score") or type(self)._score is not SequenceNet._score:
            return None
        return Product(state, self.item_output())

    def loss(self, batch: SequenceBatch) -> Tensor:
        """The objective's mean over all targets, as the batch counts, plus extra losses."""
        states = self.user_state(batch)  # (B, L, D)
        main = batch.counted(self._main_loss(*self._supervised(batch, states)))
        return main + extra_losses(self, batch, states)

    def _supervised(
        self, batch: SequenceBatch, states: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return (states (M, D), targets (M,), negatives (M,) or None) of what is trained."""
        real = batch.targets > 0
        negative = None if batch.negative is None else batch.negative[real]
        return states[real], batch.targets[real], negative

    def _scored_by_hook(self) -> bool:
        return overrides(self, "score")

    def _main_loss(self, states: Tensor, targets: Tensor, negative: Tensor | None) -> Tensor:
        scores = self.score(states) if self._scored_by_hook() else None
        return self.objective(states, self.item_output(), targets, negative, scores)

    def keep(self) -> None:
        """Compute the outputs of all items once, until ``release``."""
        self._outputs = self.item_output().detach().contiguous()

    def release(self) -> None:
        self._outputs = None

    @property
    def is_kept(self) -> bool:
        return self._outputs is not None

    def folded(self) -> Any:
        """Return a copy without hooks whose tables hold what the item seams give."""
        ids = torch.arange(self.config["n_items"] + 1, device=self.item_table.weight.device)
        inputs, outputs = self.item_input(ids), self.item_output()
        tied = self.output_table is None and torch.equal(inputs, outputs)
        config: dict[str, Any] = {**self.config, "output_dim": 0 if tied else outputs.shape[1]}
        copy = type(self)(**config).to(inputs.device)
        own = {k: v for k, v in self.state_dict().items() if not k.startswith("hooks.")}
        own["item_table.weight"] = inputs
        if not tied:
            own["output_table"] = outputs
        copy.load_state_dict(own)
        return copy
