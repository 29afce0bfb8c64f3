"""The network of SASRec. Shapes: B batch, L length, N items, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout_net import dropout
from .sequence_net import SequenceNet

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


class SASRecNet(SequenceNet):
    """A ``SequenceNet`` whose states come from causal self-attention.

    With ``keeps_layers`` (set by a part that reads them) ``layer_states`` are those of the last
    call of ``encode``: what entered the first layer, then the states (B, L, D) after each.
    """

    keeps_layers: bool = False
    layer_states: tuple[Tensor, ...] = ()

    def __init__(
        self, *, n_items: int, dim: int, layers: int, heads: int, inner: int, dropout: float,
        max_len: int, table_std: float, positions: str, output_dim: int = 0,
        tau: float = 0.0,
    ) -> None:  # fmt: skip
        """``output_dim`` > 0 gives the (folded) net an item output table of its own; ``tau`` > 0
        scores by cosine.
        """
        super().__init__()
        if positions not in POSITIONS:
            raise ValueError(f"unknown positions {positions!r}: use one of {POSITIONS}")
        self.config = {
            "n_items": n_items, "dim": dim, "layers": layers, "heads": heads, "inner": inner,
            "dropout": dropout, "max_len": max_len, "table_std": table_std,
            "positions": positions, "output_dim": output_dim,
        }  # fmt: skip
        if tau:
            self.config["tau"] = self.tau = tau
        self.max_len, self.dropout = max_len, dropout
        self._tables(n_items, dim)
        by_distance = positions == "distance"
        self.distances = nn.Parameter(torch.zeros(heads, max_len)) if by_distance else None
        self.places = None if by_distance else nn.Parameter(torch.zeros(max_len, dim))
        self.norm = nn.LayerNorm(dim)  # of the input
        self.blocks = nn.ModuleList(Block(dim, heads, inner, dropout) for _ in range(layers))
        self._start(n_items, output_dim, table_std)
        if self.places is not None:
            with torch.no_grad():
                self.places.normal_(0, table_std)

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return states (B, L, D) of the item vectors x (B, L, D); mask (B, L) is True if real."""
        length = x.shape[1]
        if length > self.max_len:
            raise ValueError(f"history of length {length}, at most max_len = {self.max_len}")
        if self.places is not None:
            x = x + self.places[:length].flip(0)  # row 0 = newest
        x = dropout(self.norm(x), self.dropout, self.training) * mask[..., None]
        bias = self._bias(mask)
        layers = [x]
        for block in self.blocks:
            x = block(x, bias)
            layers.append(x)
        self.layer_states = tuple(layers) if self.keeps_layers else ()
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
