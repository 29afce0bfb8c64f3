"""The network of HSTU. Shapes: B batch, L length, N items, D width, H heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batches import SequenceBatch
from .dropout_net import dropout
from .sequence_net import SequenceNet

EPS = 1e-6
LOG_STEP = 0.301  # natural logarithm of the factor between buckets of time


def time_buckets(time: Tensor, count: int) -> Tensor:
    """Return int64 (B, L, L): the bucket of the seconds from item j to item i, of times (B, L)."""
    gap = (time[:, :, None] - time[:, None, :]).clamp(min=1)
    return (gap.float().log() / LOG_STEP).long().clamp(max=count - 1)


def pointwise_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, allowed: Tensor, n: int
) -> Tensor:
    """Return ``(silu(q k^T + bias) / n * allowed) v``; q, k (B, H, L, E), v (B, H, L, F).

    bias (H, L, L) or (B, H, L, L); allowed (B, 1, L, L) is 1 where a position may look, multiplied
    after silu: silu(-inf) would be no number.
    """
    return (F.silu(q @ k.transpose(-1, -2) + bias) * (allowed / n)) @ v


class HSTUBlock(nn.Module):
    """One layer: projections with a gate, pointwise attention, output with a residual."""

    def __init__(
        self, dim: int, heads: int, inner: int, attention: int, dropout: float, max_len: int,
        buckets: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        if inner % heads or attention % heads:
            raise ValueError(
                f"inner {inner} and attention {attention} must be multiples of heads {heads}"
            )
        self.heads, self.dropout, self.max_len = heads, dropout, max_len
        self.widths = [inner, inner, attention, attention]
        self.project = nn.Linear(dim, sum(self.widths), bias=False)
        self.out = nn.Linear(inner, dim)
        self.distances = nn.Parameter(torch.zeros(heads, max_len))
        with torch.no_grad():
            self.project.weight.normal_(0, 0.02)
            self.distances.normal_(0, 0.02)
            nn.init.xavier_uniform_(self.out.weight)
        self.gaps = nn.Parameter(torch.zeros(heads, buckets)) if buckets else None

    def forward(self, x: Tensor, allowed: Tensor, gap: Tensor | None = None) -> Tensor:
        """x (B, L, D); allowed float (B, 1, L, L); gap int64 (B, L, L), buckets of time."""
        b, length, d = x.shape
        u, v, q, k = F.silu(self.project(F.layer_norm(x, (d,), eps=EPS))).split(self.widths, -1)
        q, k, v = (w.view(b, length, self.heads, -1).transpose(1, 2) for w in (q, k, v))
        at = torch.arange(length, device=x.device)
        bias = self.distances[:, (at[:, None] - at).clamp(min=0)]
        if gap is not None:
            bias = bias + self.gaps[:, gap].transpose(0, 1)
        mixed = pointwise_attention(q, k, v, bias, allowed, self.max_len)
        mixed = mixed.transpose(1, 2).reshape(b, length, -1)
        gated = u * F.layer_norm(mixed, mixed.shape[-1:], eps=EPS)
        return x + self.out(dropout(gated, self.dropout, self.training))


class HSTUNet(SequenceNet):
    """A ``SequenceNet`` over ``HSTUBlock``s; states and outputs have length 1.

    The temperature is in the states, so that their product with the outputs is the score.
    """

    def __init__(
        self, *, n_items: int, dim: int, layers: int, heads: int, inner: int, attention: int,
        dropout: float, places: bool, temperature: float, max_len: int, table_std: float,
        output_dim: int = 0, time_buckets: int = 0,
    ) -> None:  # fmt: skip
        """``output_dim`` > 0 gives the (folded) net an item output table of its own."""
        super().__init__()
        self.config = {
            "n_items": n_items, "dim": dim, "layers": layers, "heads": heads, "inner": inner,
            "attention": attention, "dropout": dropout, "places": places,
            "temperature": temperature, "max_len": max_len, "table_std": table_std,
            "output_dim": output_dim, "time_buckets": time_buckets,
        }  # fmt: skip
        self.max_len, self.dropout, self.temperature = max_len, dropout, temperature
        self.time_buckets = time_buckets
        self._tables(n_items, dim)
        self.places = nn.Parameter(torch.zeros(max_len, dim)) if places else None
        self.blocks = nn.ModuleList(
            HSTUBlock(dim, heads, inner, attention, dropout, max_len, time_buckets)
            for _ in range(layers)
        )
        self._start(n_items, output_dim, table_std)
        if self.places is not None:
            with torch.no_grad():
                self.places.normal_(0, table_std)

    def _item_output(self, ids: Tensor | None) -> Tensor:
        outputs = super()._item_output(ids)
        return outputs if self.output_table is not None else F.normalize(outputs, dim=-1)

    @property
    def reads_times(self) -> bool:
        return self.time_buckets > 0

    def _hidden_states(self, batch: SequenceBatch) -> Tensor:
        if not self.reads_times:
            return super()._hidden_states(batch)
        if batch.time is None:
            raise ValueError(
                "HSTU with time_buckets reads the times of a history, and none were given; set "
                "time_buckets to 0 where histories have no clock"
            )
        gap = time_buckets(batch.time, self.time_buckets)
        return self.encode(self.item_input(batch.items), batch.items > 0, gap)

    def _user_state(self, batch: SequenceBatch) -> Tensor:
        states = self.hidden_states(batch)
        states = states[:, -1] if batch.targets is None else states
        return F.normalize(states, dim=-1) / self.temperature

    def encode(self, x: Tensor, mask: Tensor, gap: Tensor | None = None) -> Tensor:
        """Return states (B, L, D) of the item vectors x (B, L, D); mask (B, L) is True if real.

        gap (B, L, L): buckets of the time between two items, where the network reads times.
        """
        length, d = x.shape[1:]
        if length > self.max_len:
            raise ValueError(f"history of length {length}, at most max_len = {self.max_len}")
        x = x * d**0.5
        if self.places is not None:
            x = x + self.places[:length].flip(0)  # row 0 = newest
        x = dropout(x, self.dropout, self.training) * mask[..., None]
        causal = torch.ones(length, length, device=x.device).tril()
        allowed = (mask[:, None, :] * causal)[:, None]
        for block in self.blocks:
            x = block(x, allowed, gap) * mask[..., None]
        return x
