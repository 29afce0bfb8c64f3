"""The network of SR-GNN. Shapes: B batch, L length, S sessions, N items, D width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batches import SequenceBatch
from .dropout_net import dropout
from .sequence_net import SequenceNet

SESSIONS = 1024  # sessions that are in work together, so that they stay near the cache


def session_graph(items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (node int64 (S, L), out (S, L, L), in (S, L, L)) of sessions (S, L), 0 = padding.

    ``node`` is the place of an item's first click, which is its node: rows and columns of other
    places are zero. ``out[s, i, j]`` is the number of steps from i to j over the out-degree of i,
    ``in[s, i, j]`` that of steps from j to i over the in-degree of i.
    """
    length = items.shape[1]
    node = (items[:, :, None] == items[:, None, :]).to(torch.uint8).argmax(2)
    step = (items[:, :-1] > 0).float()  # padding lies on the left: what follows a click is real
    edges = step.new_zeros(len(items), length * length)
    edges.scatter_add_(1, node[:, :-1] * length + node[:, 1:], step)
    edges = edges.view(-1, length, length)
    return node, *by_degree(edges)


def by_degree(edges: Tensor) -> tuple[Tensor, Tensor]:
    """Return out, in (S, L, L) of counts of steps (S, L, L): rows over their sums, zero if none.

    ``out[s, i, j]`` is the share of the steps from i that lead to j, ``in[s, i, j]`` that of the
    steps to i that come from j.
    """
    back = edges.transpose(1, 2)
    return edges / edges.sum(2, True).clamp(min=1), back / back.sum(2, True).clamp(min=1)


def gated_step(net: Any, h: Tensor, out: Tensor, into: Tensor) -> Tensor:
    """Return the nodes h (S, L, D) after one gated update along both directions of the edges."""
    message = torch.cat([into @ net.message_in(h), out @ net.message_out(h)], -1)
    return net.cell(message.flatten(0, 1), h.flatten(0, 1)).view_as(h)


def read_out(net: Any, newest: Tensor, nodes: Tensor) -> Tensor:
    """Return (S, D): W [v_newest ; attention-pooled nodes], nodes (S, L, D) zero where padded."""
    weight = net.query(torch.sigmoid(net.last(newest)[:, None] + net.each(nodes)))
    return net.out(torch.cat([newest, (weight * nodes).sum(1)], -1))


class SRGNNNet(SequenceNet):
    """A ``SequenceNet`` whose state at t is that of the session of items up to t."""

    def __init__(
        self, *, n_items: int, dim: int, steps: int, dropout: float, max_len: int,
        table_std: float, output_dim: int = 0,
    ) -> None:  # fmt: skip
        """``output_dim`` > 0 gives the (folded) net an item output table of its own."""
        super().__init__()
        self.config = {
            "n_items": n_items, "dim": dim, "steps": steps, "dropout": dropout,
            "max_len": max_len, "table_std": table_std, "output_dim": output_dim,
        }  # fmt: skip
        self.max_len, self.dropout, self.steps = max_len, dropout, steps
        self._tables(n_items, dim)
        self.message_in, self.message_out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.cell = nn.GRUCell(2 * dim, dim)
        self.last, self.each = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.query = nn.Linear(dim, 1, bias=False)
        self.out = nn.Linear(2 * dim, dim, bias=False)
        self._start(n_items, output_dim, table_std)

    def _hidden_states(self, batch: SequenceBatch) -> Tensor:
        """Return (B, L, D) with targets, each prefix being a session; else (B, 1, D)."""
        items = batch.items
        if items.shape[1] > self.max_len:
            raise ValueError(f"history of length {items.shape[1]}, at most {self.max_len}")
        if batch.targets is None:
            return self._sessions(items)[:, None]
        wanted = batch.targets > 0
        length = items.shape[1]
        prefixes = F.pad(items, (length - 1, 0)).unfold(1, length, 1)[wanted]  # (S, L)
        order = (prefixes > 0).sum(1).argsort(stable=True)  # short ones together, without padding
        parts = [self._sessions(prefixes[rows]) for rows in order.split(SESSIONS)]
        states = torch.cat(parts)[order.argsort()]
        out = states.new_zeros(*items.shape, states.shape[-1])
        return out.masked_scatter(wanted[..., None], states)

    def _sessions(self, items: Tensor) -> Tensor:
        """Return (S, D), the states of sessions (S, L), left padded."""
        items = items[:, items.shape[1] - max(1, int((items > 0).sum(1).max())) :]
        real = items > 0
        x = dropout(self.item_input(items), self.dropout, self.training) * real[..., None]
        node, out, into = session_graph(items)
        index = node[..., None].expand_as(x)
        h = x.gather(1, index)  # an item that is clicked twice is one node
        for _ in range(self.steps):
            h = gated_step(self, h, out, into)
        clicked = h.gather(1, index) * real[..., None]  # by click, in the order of clicks
        return read_out(self, clicked[:, -1], clicked)
