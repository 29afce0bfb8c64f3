"""The network of BERT4Rec. Shapes: B batch, L length, N items, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batches import SequenceBatch
from .dropout_net import dropout
from .sasrec_net import POSITIONS, Block
from .sequence_net import SequenceNet


class BERT4RecNet(SequenceNet):
    """A ``SequenceNet`` over positions of which some hold the mask, id N + 1.

    The mask has a vector of its own beside the item table, so that no hook ever reads row N + 1
    and nothing can recommend it. A state is ``(1, transformed h)``, an item's output ``(b_j,
    e_j)``, (N + 1, 1 + D): their product has the output bias in it.
    """

    def __init__(
        self, *, n_items: int, dim: int, layers: int, heads: int, inner: int, dropout: float,
        max_len: int, table_std: float, positions: str = "right", output_dim: int = 0,
    ) -> None:  # fmt: skip
        """``output_dim`` > 0 gives the (folded) net an item output table of its own."""
        super().__init__()
        if positions not in POSITIONS:
            raise ValueError(f"unknown positions {positions!r}: use one of {POSITIONS}")
        if max_len < 2:
            raise ValueError(f"max_len is {max_len}; the mask and one item need at least 2")
        self.config = {
            "n_items": n_items, "dim": dim, "layers": layers, "heads": heads, "inner": inner,
            "dropout": dropout, "max_len": max_len, "table_std": table_std,
            "positions": positions, "output_dim": output_dim,
        }  # fmt: skip
        self.max_len, self.dropout, self.mask_id = max_len, dropout, n_items + 1
        self._tables(n_items, dim)
        self.mask_vector = nn.Parameter(torch.zeros(dim))
        far = 2 * max_len - 1  # distances to both sides
        by_distance = positions == "distance"
        self.distances = nn.Parameter(torch.zeros(heads, far)) if by_distance else None
        # row 0 = newest
        self.places = None if by_distance else nn.Parameter(torch.zeros(max_len, dim))
        self.bias = nn.Parameter(torch.zeros(n_items + 1))
        self.norm = nn.LayerNorm(dim)  # of the input
        self.blocks = nn.ModuleList(Block(dim, heads, inner, dropout) for _ in range(layers))
        self.head, self.head_norm = nn.Linear(dim, dim), nn.LayerNorm(dim)
        self._start(n_items, output_dim, table_std)
        with torch.no_grad():
            if self.places is not None:
                self.places.normal_(0, table_std)
            self.mask_vector.normal_(0, table_std)

    def _item_output(self, ids: Tensor | None) -> Tensor:
        if self.output_table is not None:
            return super()._item_output(ids)
        bias = self.bias if ids is None else self.bias[ids]
        return torch.cat([bias[..., None], super()._item_output(ids)], -1)

    def _user_state(self, batch: SequenceBatch) -> Tensor:
        states = self.hidden_states(batch)
        states = self.head_norm(F.gelu(self.head(states)))
        states = torch.cat([torch.ones_like(states[..., :1]), states], -1)
        return states[:, -1] if batch.targets is None else states

    def _hidden_states(self, batch: SequenceBatch) -> Tensor:
        """Return (B, L, D); a batch without targets gets a mask appended, its oldest item goes."""
        items = batch.items
        if batch.targets is None:
            newest = items[:, -(self.max_len - 1) :]
            items = F.pad(newest, (0, 1), value=self.mask_id)
        gap = items == self.mask_id
        x = torch.where(gap[..., None], self.mask_vector, self.item_input(items * ~gap))
        return self.encode(x, items > 0)

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return states (B, L, D) of vectors x (B, L, D); mask (B, L) is True if not padding."""
        length = x.shape[1]
        if length > self.max_len:
            raise ValueError(f"{length} positions, at most max_len = {self.max_len}")
        if self.places is not None:
            x = x + self.places[:length].flip(0)
        x = dropout(self.norm(x), self.dropout, self.training) * mask[..., None]
        bias = self._bias(mask)
        for block in self.blocks:
            x = block(x, bias)
        return x

    def _bias(self, mask: Tensor) -> Tensor:
        """Return (B, heads or 1, L, L): what is added to the attention of a row to a column."""
        length = mask.shape[1]
        eye = torch.eye(length, dtype=torch.bool, device=mask.device)  # padding needs one key
        allowed = (mask[:, None, :] | eye)[:, None]
        if self.distances is None:
            zero = torch.zeros((), device=mask.device)
            return torch.where(allowed, zero, -torch.inf)
        at = torch.arange(length, device=mask.device)
        bias = self.distances[:, at[:, None] - at + self.max_len - 1]  # (heads, L, L)
        return bias[None].masked_fill(~allowed, -torch.inf)
