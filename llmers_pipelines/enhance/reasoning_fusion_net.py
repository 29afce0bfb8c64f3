"""The network of reasoning graphs. Shapes: B batch, L length, G graphs, n nodes, m edges, D width,
R rounds, U users, E text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models.srgnn_net import by_degree, gated_step, read_out

if TYPE_CHECKING:
    import pyarrow as pa

    from ..data.training import TrainingData
    from ..data.vectors import VectorTable

KINDS = ("original", "divergent")
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Packed:
    """Graphs of one kind; graph 0 is none. Places are right aligned: the last node is at n - 1."""

    node: Tensor  # int64 (G, n): item position, or n_items + 1 + row of the texts; 0 = none
    source: Tensor  # int64 (G, m) places, equal to ``target`` at n - 1 where there is no edge
    target: Tensor
    edge: Tensor  # float32 (G, m), 0 where there is no edge
    of: Tensor  # int64 (U + 1, R): the graph of a user's round, 0 = none
    cut: Tensor  # int64 (U + 1, R)


def pack(
    table: pa.Table, texts: VectorTable, data: TrainingData, names: tuple[str, str]
) -> tuple[dict[str, Packed], Tensor]:
    """Return the graphs of each kind and the vectors (T, E) of text nodes, centred, at unit scale.

    Users outside of the log are left out; so are items outside of it, with their edges. Raises
    ValueError for a text node without a row among ``texts``.
    """
    place = {f"text:{i}": data.n_items + 1 + n for n, i in enumerate(texts.ids)}
    place |= {f"item:{i}": n for n, i in enumerate(data.items.ids, start=1)}
    rows = table.to_pylist()
    rounds = max([1, *(r["round"] for r in rows)])
    packed = {}
    for kind in KINDS:
        own = [r for r in rows if r["kind"] == kind and data.users.index([r["user_id"]])[0]]
        packed[kind] = _packed(own, rounds, place, data, names)
    known = np.asarray(texts.vectors, np.float64) * texts.mask[:, None]
    if texts.mask.any():
        known = known - known[texts.mask].mean(0)
        known = known / max(float((known[texts.mask] ** 2).mean()) ** 0.5, 1e-12)
        known[~texts.mask] = 0
    return packed, torch.from_numpy(known.astype(np.float32))


def _packed(
    rows: list[dict[str, Any]], rounds: int, place: dict[str, int], data: TrainingData,
    names: tuple[str, str],
) -> Packed:  # fmt: skip
    n = max([1, *(len(r["nodes"]) for r in rows)])
    m = max([1, *(len(r["sources"]) for r in rows)])
    node = np.zeros((len(rows) + 1, n), np.int64)
    ends = np.full((2, len(rows) + 1, m), n - 1, np.int64)
    edge = np.zeros((len(rows) + 1, m), np.float32)
    of = np.zeros((data.n_users + 1, rounds), np.int64)
    cut = np.full((data.n_users + 1, rounds), NEVER, np.int64)
    users = data.users.index([r["user_id"] for r in rows])
    for g, (row, user) in enumerate(zip(rows, users, strict=True), start=1):
        first = n - len(row["nodes"])
        for at, name in enumerate(row["nodes"]):
            if name not in place and name.startswith("text:"):
                raise ValueError(f"{names[0]}: the graph of user {row['user_id']!r} has the node "
                                 f"{name!r}, which {names[1]} has no row for")  # fmt: skip
            node[g, first + at] = place.get(name, 0)
        for k, (a, b) in enumerate(zip(row["sources"], row["targets"], strict=True)):
            ends[:, g, k] = first + a, first + b
            edge[g, k] = float(node[g, first + a] > 0 and node[g, first + b] > 0)
        of[user, row["round"] - 1] = g
        cut[user, row["round"] - 1] = row["cut"]
    arrays = (node, ends[0], ends[1], edge, of, cut)
    return Packed(*(torch.from_numpy(a) for a in arrays))


class Reader(nn.Module):
    """SR-GNN over graphs of one kind: gated updates along the edges, then the readout."""

    def __init__(self, packed: Packed, dim: int, steps: int) -> None:
        super().__init__()
        for name in ("node", "source", "target", "edge", "of", "cut"):
            self.register_buffer(name, getattr(packed, name), persistent=False)
        self.steps = steps
        self.message_in, self.message_out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.cell = nn.GRUCell(2 * dim, dim)
        self.last, self.each = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.query = nn.Linear(dim, 1, bias=False)
        self.out = nn.Linear(2 * dim, dim, bias=False)
        self.default = nn.Parameter(torch.zeros(dim))

    def edges(self, graphs: Tensor) -> tuple[Tensor, Tensor]:
        """Return A_out, A_in (S, n, n), rows over their degrees, of graphs (S,)."""
        n = self.node.shape[1]
        flat = self.edge.new_zeros(len(graphs), n * n)
        flat.scatter_add_(1, self.source[graphs] * n + self.target[graphs], self.edge[graphs])
        return by_degree(flat.view(-1, n, n))

    def forward(self, graphs: Tensor, vectors: Any) -> Tensor:
        """Return (S, D) of graphs (S,); the default for graph 0. ``vectors`` maps nodes to rows."""
        distinct, back = graphs.unique(return_inverse=True)
        nodes = self.node[distinct]
        real = (nodes > 0)[..., None]
        h = vectors(nodes) * real
        out, into = self.edges(distinct)
        for _ in range(self.steps):
            h = gated_step(self, h, out, into)
        read = read_out(self, h[:, -1], h * real)
        return torch.where(distinct[:, None] > 0, read, self.default)[back]


class ReasoningHook(nn.Module):
    """Fuses the readouts of both kinds of graphs into the user's state."""

    def __init__(
        self, packed: dict[str, Packed], texts: Tensor, *, dim: int, width: int, steps: int,
        strength: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.register_buffer("texts", texts, persistent=False)
        self.text = nn.Linear(texts.shape[1], dim, bias=False)
        self.readers = nn.ModuleDict({k: Reader(packed[k], dim, steps) for k in KINDS})
        start = torch.cat([torch.eye(width), torch.zeros(2 * dim, width)])
        self.fusion = nn.Parameter(start)
        self.strength = strength

    def vectors(self, model: Any, nodes: Tensor) -> Tensor:
        """Return the initial vectors (..., D) of nodes: rows of items, or projected texts."""
        table = model.item_table.weight
        n_items = model.config["n_items"]
        row = (nodes - n_items - 1).clamp(min=0)
        own = table[nodes.clamp(max=n_items)]
        if not len(self.texts):
            return own
        return torch.where((nodes > n_items)[..., None], self.text(self.texts[row]), own)

    def read(self, model: Any, users: Tensor, before: Tensor | None) -> list[Tensor]:
        """Return both kinds' (B, D), or (B, L, D) for states that have seen ``before`` (B, L) rows.

        Without ``before`` the newest round counts.
        """
        out = []
        for kind in KINDS:
            reader = self.readers[kind]
            of, cut = reader.of[users], reader.cut[users]
            there = cut < NEVER
            if before is not None:
                of, cut, there = of[:, None], cut[:, None], there[:, None]
                there = there & (cut <= before[..., None])
            rank = torch.arange(1, of.shape[-1] + 1, device=of.device) * there
            newest = rank.argmax(-1, keepdim=True)
            graph = of.expand_as(rank).gather(-1, newest)[..., 0] * there.any(-1)
            read = reader(graph.flatten(), lambda nodes: self.vectors(model, nodes))
            out.append(read.view(*graph.shape, -1))
        return out

    def user_state(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        state = nxt(batch)
        if not self.strength:
            return state
        before = None
        if batch.targets is not None:
            length = batch.items.shape[1]
            real = (batch.items > 0).sum(1, keepdim=True)
            at = torch.arange(length, device=real.device) - (length - real)
            before = batch.begin[:, None] + at  # rows before this one: what all models have seen
        read = [r * self.strength for r in self.read(model, batch.user, before)]
        return fused(state, read, self.fusion)

    def fold(self, model: Any) -> ServedReasoning | None:
        """Return the readouts of every user as plain tables."""
        if not self.strength:
            return None
        users = torch.arange(len(self.readers[KINDS[0]].of), device=self.fusion.device)
        tables = [
            torch.cat([self.read(model, part, None)[k] for part in users.split(1024)])
            for k in range(len(KINDS))
        ]
        served = ServedReasoning(len(users), tables[0].shape[1], self.fusion.shape[1])
        served.fusion.copy_(self.fusion.detach())
        served.tables.copy_(torch.stack(tables).detach() * self.strength)
        return served.to(self.fusion.device)


class ServedReasoning(nn.Module):
    """The state with one row per user and kind; an unknown user has the default."""

    def __init__(self, rows: int, dim: int, width: int) -> None:
        super().__init__()
        self.config = {"rows": rows, "dim": dim, "width": width}
        self.register_buffer("tables", torch.zeros(len(KINDS), rows, dim))
        self.register_buffer("fusion", torch.zeros(width + len(KINDS) * dim, width))

    def user_state(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        return fused(nxt(batch), list(self.tables[:, batch.user]), self.fusion)


def fused(state: Tensor, read: list[Tensor], weight: Tensor) -> Tensor:
    """Return ``[state ; read ...] W_f``, of the shape of the state.

    state (B, D) or (B, L, D), or with several vectors side by side (interests), each of which is
    fused with what is read; read (B, D) or (B, L, D).
    """
    width = weight.shape[1]
    states = state.unflatten(-1, (-1, width))
    out, at = states @ weight[:width], width
    for part in read:
        out = out + (part @ weight[at : at + part.shape[-1]]).unsqueeze(-2)
        at += part.shape[-1]
    return out.flatten(-2)
