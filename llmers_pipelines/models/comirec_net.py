"""The network of ComiRec-SA. Shapes: B batch, L length, K interests, N items, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .dropout_net import dropout
from .sasrec_net import allowed_positions
from .sequence_net import SequenceNet

ROUTINGS = ("best", "target")
SCORES = 1 << 22  # scores that are in work together in training


class ComiRecNet(SequenceNet):
    """A ``SequenceNet`` whose states hold K interests; a score is the largest of K products."""

    def __init__(
        self, *, n_items: int, dim: int, interests: int, inner: int, mapped: bool, routing: str,
        dropout: float, max_len: int, table_std: float, output_dim: int = 0,
    ) -> None:  # fmt: skip
        """``output_dim`` > 0 gives the (folded) net an item output table of its own."""
        super().__init__()
        if routing not in ROUTINGS:
            raise ValueError(f"unknown routing {routing!r}: use one of {ROUTINGS}")
        self.config = {
            "n_items": n_items, "dim": dim, "interests": interests, "inner": inner,
            "mapped": mapped, "routing": routing, "dropout": dropout, "max_len": max_len,
            "table_std": table_std, "output_dim": output_dim,
        }  # fmt: skip
        self.max_len, self.dropout, self.interests = max_len, dropout, interests
        self.routing = routing
        self._tables(n_items, dim)
        self.up = nn.Linear(dim, inner, bias=False)  # W_1
        self.pick = nn.Linear(inner, interests, bias=False)  # W_2
        self.distances = nn.Parameter(torch.zeros(interests, max_len))
        self.out = nn.Linear(dim, dim) if mapped else None
        self._start(n_items, output_dim, table_std)

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return interests (B, L, K D) of the item vectors x (B, L, D); mask (B, L)."""
        b, length, d = x.shape
        if length > self.max_len:
            raise ValueError(f"history of length {length}, at most max_len = {self.max_len}")
        x = dropout(x, self.dropout, self.training) * mask[..., None]
        logits = self.pick(torch.tanh(self.up(x))).transpose(1, 2)  # (B, K, L)
        at = torch.arange(length, device=x.device)
        bias = self.distances[:, (at[:, None] - at).clamp(min=0)]  # (K, L, L)
        weight = logits[:, :, None] + bias
        weight = weight.masked_fill(~allowed_positions(mask), -torch.inf).softmax(-1)
        mixed = (weight @ x[:, None]).transpose(1, 2)  # (B, L, K, D)
        mixed = mixed if self.out is None else self.out(mixed)
        return mixed.reshape(b, length, self.interests * d)

    def _apart(self, state: Tensor) -> Tensor:
        return state.unflatten(-1, (self.interests, -1))

    def _score(self, state: Tensor, ids: Tensor | None) -> Tensor:
        return (self._apart(state) @ self.item_output(ids).T).amax(1)

    def _main_loss(self, states: Tensor, targets: Tensor, negative: Tensor | None) -> Tensor:
        """The objective of states (M, K D); by "target" each on the interest nearest to it."""
        if self._scored_by_hook():
            return super()._main_loss(states, targets, negative)
        if self.routing == "target":
            interests = self._apart(states)
            with torch.no_grad():
                best = (interests @ self.item_output(targets)[..., None]).argmax(1)[:, 0]  # (M,)
            rows = torch.arange(len(states), device=states.device)
            return self.objective(interests[rows, best], self.item_output(), targets, negative)
        step = max(32, SCORES // (self.interests * self.item_table.num_embeddings))
        total = states.new_zeros(())
        for at in range(0, len(states), step):
            part = slice(at, at + step)
            other = None if negative is None else negative[part]
            # scores of a chunk are computed again in the backward pass: they are never all held
            loss = checkpoint(
                self._by_best, states[part], targets[part], other, use_reentrant=False
            )
            total = total + loss * len(targets[part])
        return total / max(len(targets), 1)

    def _by_best(self, states: Tensor, targets: Tensor, negative: Tensor | None) -> Tensor:
        scores = self._score(states, None)
        return self.objective(states, self.item_output(), targets, negative, scores)
