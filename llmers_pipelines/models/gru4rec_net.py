"""The network of GRU4Rec. Shapes: B batch, L length, N items, D width of items, H hidden width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .dropout_net import dropout
from .gather_net import taken
from .recurrent_net import gru
from .sequence_net import SequenceNet


class GRU4RecNet(SequenceNet):
    """``h_t = GRU(e_{i_t}, h_{t-1})`` from ``h_0 = 0`` at the oldest item; state ``W h_t + b``."""

    def __init__(
        self, *, n_items: int, dim: int, hidden: int, layers: int, dropout: float, max_len: int,
        table_std: float, output_dim: int = 0,
    ) -> None:  # fmt: skip
        """``output_dim`` > 0 gives the (folded) net an item output table of its own."""
        super().__init__()
        self.config = {
            "n_items": n_items, "dim": dim, "hidden": hidden, "layers": layers,
            "dropout": dropout, "max_len": max_len, "table_std": table_std,
            "output_dim": output_dim,
        }  # fmt: skip
        self.max_len, self.dropout = max_len, dropout
        self._tables(n_items, dim)
        self.norm = nn.LayerNorm(dim)  # of the input
        widths = [dim, *[hidden] * (layers - 1)]
        self.layers = nn.ModuleList(nn.GRU(w, hidden, batch_first=True) for w in widths)
        self.out = nn.Linear(hidden, dim)
        self._start(n_items, output_dim, table_std)

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return states (B, L, D) of the item vectors x (B, L, D); mask (B, L) is True if real.

        Padding lies on the left, where a recurrence would carry it on: rows are moved to the left
        end first, so that each starts from a zero state, and the states are moved back.
        """
        length = x.shape[1]
        if length > self.max_len:
            raise ValueError(f"history of length {length}, at most max_len = {self.max_len}")
        shift = length - mask.sum(1, keepdim=True)  # (B, 1) padded columns
        at = torch.arange(length, device=x.device)
        x = dropout(self.norm(x), self.dropout, self.training)
        padded = bool(shift.any())
        x = taken(x * mask[..., None], (at + shift) % length) if padded else x
        for number, layer in enumerate(self.layers):
            x = gru(layer, dropout(x, self.dropout if number else 0.0, self.training))
        x = taken(x, (at - shift) % length) * mask[..., None] if padded else x
        return self.out(dropout(x, self.dropout, self.training))
