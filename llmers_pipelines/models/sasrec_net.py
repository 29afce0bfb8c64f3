"""The network of SASRec. Shapes: B batch, L length, N items, D width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batches import SequenceBatch
from .dropout_net import dropout
from .hooks_net import extra_losses, overrides
from .losses_net import full_cross_entropy
from .seams import through

POSITIONS = ("distance", "right")


class Block(nn.Module):
    """Transformer block: attention, then a feed-forward layer, a residual and a norm after each."""

    def __init__(self, dim: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} is not a multiple of heads {heads}")
        self.heads, self.dropout = heads, dropout
        self.attention_norm, self.inner_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, inner), nn.Linear(inner, dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x (B, L, D); bias (B, heads, L, L) is added to the attention, -inf where forbidden."""
        b, length, d = x.shape
        qkv = self.qkv(x).view(b, length, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, L, D / heads)
        mixed = self._attend(q, k, v, bias).transpose(1, 2).reshape(b, length, d)
        x = self.attention_norm(x + self._drop(self.out(mixed)))
        return self.inner_norm(x + self._drop(self.down(self._drop(F.gelu(self.up(x))))))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        if not self.training or q.is_cuda:
            p = self.dropout if self.training else 0.0
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=p)
        # On a CPU the fused kernel has neither dropout nor a gradient for the bias.
        weight = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias).softmax(-1)
        return self._drop(weight) @ v

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)


def allowed_positions(mask: Tensor) -> Tensor:
    """Return bool (B, 1, L, L): position t may look at real positions up to t, and at itself.

    The own position stays allowed on padding, because a row without any key would be NaN.
    """
    length = mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    eye = torch.eye(length, dtype=torch.bool, device=mask.device)
    return ((mask[:, None, :] & causal) | eye)[:, None]


class SASRecNet(nn.Module):
    """Histories to states; an item's score is the dot product of state and item output.

    ``user_state`` of a training batch (one with targets) gives the states of all positions,
    (B, L, D), because each is trained; of a scoring batch the last one, (B, D). Hooks on it must
    act on the last axis and let batch.user broadcast over positions.
    """

    def __init__(
        self, *, n_items: int, dim: int, layers: int, heads: int, inner: int, dropout: float,
        max_len: int, table_std: float, positions: str, output_dim: int = 0,
    ) -> None:  # fmt: skip
        """``output_dim`` > 0 gives the (folded) net an item output table of its own."""
        super().__init__()
        if positions not in POSITIONS:
            raise ValueError(f"unknown positions {positions!r}: use one of {POSITIONS}")
        self.config = {
            "n_items": n_items, "dim": dim, "layers": layers, "heads": heads, "inner": inner,
            "dropout": dropout, "max_len": max_len, "table_std": table_std,
            "positions": positions, "output_dim": output_dim,
        }  # fmt: skip
        self.max_len, self.dropout = max_len, dropout
        self.hooks = nn.ModuleList()
        self.item_table = nn.Embedding(n_items + 1, dim, padding_idx=0)
        by_distance = positions == "distance"
        self.distances = nn.Parameter(torch.zeros(heads, max_len)) if by_distance else None
        self.places = None if by_distance else nn.Parameter(torch.zeros(max_len, dim))
        self.norm = nn.LayerNorm(dim)  # of the input
        self.blocks = nn.ModuleList(Block(dim, heads, inner, dropout) for _ in range(layers))
        self.output_table = (
            nn.Parameter(torch.zeros(n_items + 1, output_dim)) if output_dim else None
        )
        self._outputs: Tensor | None = None
        with torch.no_grad():
            self.item_table.weight.normal_(0, table_std)[0] = 0
            if self.places is not None:
                self.places.normal_(0, table_std)

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
        return table if ids is None else F.embedding(ids, table)

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return states (B, L, D) of the item vectors x (B, L, D); mask (B, L) is True if real."""
        length = x.shape[1]
        if length > self.max_len:
            raise ValueError(f"history of length {length}, at most max_len = {self.max_len}")
        if self.places is not None:
            x = x + self.places[:length].flip(0)  # row 0 = newest
        x = dropout(self.norm(x), self.dropout, self.training) * mask[..., None]
        bias = self._bias(mask)
        for block in self.blocks:
            x = block(x, bias)
        return x

    def _bias(self, mask: Tensor) -> Tensor:
        """Return (B, heads or 1, L, L): what is added to the attention of t (row) to s (column)."""
        allowed = allowed_positions(mask)
        if self.distances is None:
            zero = torch.zeros((), device=mask.device)
            return torch.where(allowed, zero, -torch.inf)
        at = torch.arange(mask.shape[1], device=mask.device)
        bias = self.distances[:, (at[:, None] - at).clamp(min=0)]  # (heads, L, L)
        return bias[None].masked_fill(~allowed, -torch.inf)

    def hidden_states(self, batch: SequenceBatch) -> Tensor:
        return through(self, "hidden_states", batch)

    def _hidden_states(self, batch: SequenceBatch) -> Tensor:
        return self.encode(self.item_input(batch.items), batch.items > 0)

    def user_state(self, batch: SequenceBatch) -> Tensor:
        return through(self, "user_state", batch)

    def _user_state(self, batch: SequenceBatch) -> Tensor:
        states = self.hidden_states(batch)
        return states[:, -1] if batch.targets is None else states

    def score(self, state: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return (B, N + 1) for all items or (B, K) for ``ids`` (K,); column 0 means nothing."""
        return through(self, "score", state, ids)

    def _score(self, state: Tensor, ids: Tensor | None) -> Tensor:
        return state @ self.item_output(ids).T

    def loss(self, batch: SequenceBatch) -> Tensor:
        """Mean cross-entropy over all items at every position with a target, plus extra losses."""
        states = self.user_state(batch)  # (B, L, D)
        real = batch.targets > 0
        picked, targets = states[real], batch.targets[real]
        if overrides(self, "score"):
            logits = self.score(picked)
            logits = torch.cat([torch.full_like(logits[:, :1], -torch.inf), logits[:, 1:]], 1)
            main = F.cross_entropy(logits, targets)
        else:
            main = full_cross_entropy(picked, self.item_output(), targets)
        return main + extra_losses(self, batch, states)

    def keep(self) -> None:
        """Compute the outputs of all items once, until ``release``."""
        self._outputs = self.item_output().detach().contiguous()

    def release(self) -> None:
        self._outputs = None

    @property
    def is_kept(self) -> bool:
        return self._outputs is not None

    def folded(self) -> SASRecNet:
        """Return a copy without hooks whose tables hold what the item seams give."""
        ids = torch.arange(self.config["n_items"] + 1, device=self.item_table.weight.device)
        inputs, outputs = self.item_input(ids), self.item_output()
        tied = self.output_table is None and torch.equal(inputs, outputs)
        config: dict[str, Any] = {**self.config, "output_dim": 0 if tied else outputs.shape[1]}
        copy = SASRecNet(**config).to(inputs.device)
        own = {k: v for k, v in self.state_dict().items() if not k.startswith("hooks.")}
        own["item_table.weight"] = inputs
        if not tied:
            own["output_table"] = outputs
        copy.load_state_dict(own)
        return copy
