"""The network of SASRec. Shapes: B batch, L length, N items, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout_net import dropout
from .sequence_net import SequenceNet

POSITIONS = ("distance", "right")
BLOCKS = ("post", "query")


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
        mixed = self._mixed(self.qkv(x), bias)
        x = self.attention_norm(x + self._drop(self.out(mixed)))
        return self.inner_norm(x + self._drop(self.down(self._drop(F.gelu(self.up(x))))))

    def _mixed(self, qkv: Tensor, bias: Tensor) -> Tensor:
        """Return (B, L, D): what attention gives for queries, keys and values (B, L, 3 D).

        A bias of L + 1 columns has a first one for the key of a zero vector.
        """
        b, length, d = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        qkv = qkv.view(b, length, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, L, D / heads)
        if bias.shape[-1] > length:
            null = self.qkv.bias[d:].view(2, 1, self.heads, 1, -1).expand(2, b, -1, -1, -1)
            k, v = torch.cat([null[0], k], 2), torch.cat([null[1], v], 2)
        return self._attend(q, k, v, bias).transpose(1, 2).reshape(b, length, d)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        if not self.training or q.is_cuda:
            p = self.dropout if self.training else 0.0
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=p)
        # On a CPU the fused kernel has neither dropout nor a gradient for the bias.
        weight = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias).softmax(-1)
        return self._drop(weight) @ v

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)


class QueryBlock(Block):
    """The block of SASRec's released code: the query alone has its norm before the attention.

    ``q = norm(x); x = q + attention(q, x, x); f = norm(x); x = f + feed_forward(f)``, with ReLU:
    both residuals are of what was normed, while keys and values are the raw vectors.
    """

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x (B, L, D); bias (B, heads, L, L) is added to the attention, -inf where forbidden."""
        d = x.shape[-1]
        weight, shift = self.qkv.weight, self.qkv.bias
        query = self.attention_norm(x)
        parts = F.linear(query, weight[:d], shift[:d]), F.linear(x, weight[d:], shift[d:])
        x = self.inner_norm(query + self.out(self._mixed(torch.cat(parts, -1), bias)))
        return x + self._drop(self.down(self._drop(F.relu(self.up(x)))))


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
        tau: float = 0.0, block: str = "post", null_keys: bool = False,
    ) -> None:  # fmt: skip
        """``output_dim`` > 0 gives the (folded) net an item output table of its own; ``tau`` > 0
        scores by cosine. ``block`` "query" has ``QueryBlock``, and its one norm more at the end
        instead of at the input. With ``null_keys`` the places of a window that a history leaves
        free are keys of zero vectors, as in code that does not mask them.
        """
        super().__init__()
        if positions not in POSITIONS:
            raise ValueError(f"unknown positions {positions!r}: use one of {POSITIONS}")
        if block not in BLOCKS:
            raise ValueError(f"unknown block {block!r}: use one of {BLOCKS}")
        self.config = {
            "n_items": n_items, "dim": dim, "layers": layers, "heads": heads, "inner": inner,
            "dropout": dropout, "max_len": max_len, "table_std": table_std,
            "positions": positions, "output_dim": output_dim,
        }  # fmt: skip
        if tau:
            self.config["tau"] = self.tau = tau
        self.last_norm = block == "query"
        if self.last_norm:
            self.config["block"] = block
        self.null_keys = null_keys
        if null_keys:
            self.config["null_keys"] = True
        self.max_len, self.dropout = max_len, dropout
        self._tables(n_items, dim)
        by_distance = positions == "distance"
        self.distances = nn.Parameter(torch.zeros(heads, max_len)) if by_distance else None
        self.places = None if by_distance else nn.Parameter(torch.zeros(max_len, dim))
        self.norm = nn.LayerNorm(dim)  # of the input, with "query" of the last states
        kind = QueryBlock if self.last_norm else Block
        self.blocks = nn.ModuleList(kind(dim, heads, inner, dropout) for _ in range(layers))
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
        if not self.last_norm:
            x = self.norm(x)
        x = dropout(x, self.dropout, self.training) * mask[..., None]
        bias = self._bias(mask)
        layers = [x]
        for block in self.blocks:
            x = block(x, bias)
            layers.append(x)
        if self.last_norm:
            layers[-1] = x = self.norm(x)
        self.layer_states = tuple(layers) if self.keeps_layers else ()
        return x

    def _bias(self, mask: Tensor) -> Tensor:
        """Return (B, heads or 1, L, L): what is added to the attention of t (row) to s (column).

        With ``null_keys`` L + 1 columns: free places are equal keys, so their count is one weight.
        """
        bias = self._bias_of_items(mask)
        if not self.null_keys:
            return bias
        free = (self.max_len - mask.sum(1)).to(bias.dtype).log()
        null = free[:, None, None, None].expand(-1, bias.shape[1], bias.shape[2], -1)
        return torch.cat([null, bias.expand(len(mask), -1, -1, -1)], -1)

    def _bias_of_items(self, mask: Tensor) -> Tensor:
        allowed = allowed_positions(mask)
        if self.distances is None:
            zero = torch.zeros((), device=mask.device)
            return torch.where(allowed, zero, -torch.inf)
        at = torch.arange(mask.shape[1], device=mask.device)
        bias = self.distances[:, (at[:, None] - at).clamp(min=0)]  # (heads, L, L)
        return bias[None].masked_fill(~allowed, -torch.inf)
