"""The network of aspect graphs. Shapes: U users, N items, A aspects, D width, B batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..data.training import TRAIN
from ..models.graph_net import Graph, added_by_history
from .user_views_net import ServedUserViews, joined, of_users, served_views

if TYPE_CHECKING:
    import pyarrow as pa

    from ..data.training import TrainingData


def aspect_graphs(table: pa.Table, data: TrainingData, name: str) -> dict[str, Graph]:
    """Return the graph of each aspect, aspects in alphabetical order.

    Edges that are named twice count once. Raises ValueError for an edge that is no training row,
    and where there is no edge.
    """
    if not table.num_rows:
        raise ValueError(f"{name}: there is no edge; no review of a training row has an aspect")
    user = data.users.index(table["user_id"].to_pylist())
    item = data.items.index(table["item_id"].to_pylist())
    width = data.n_items + 1
    rows = data.split == TRAIN
    train = set((data.user[rows] * width + data.item[rows]).tolist())
    by_aspect: dict[str, set[int]] = {}
    for row, (pair, aspect) in enumerate(
        zip((user * width + item).tolist(), table["aspect"].to_pylist(), strict=True)
    ):
        if pair not in train:
            found = {c: table[c][row].as_py() for c in ("user_id", "item_id")}
            raise ValueError(f"{name}, row {row}: user {found['user_id']!r}, item "
                             f"{found['item_id']!r} is no training row; edges are training rows "
                             "alone")  # fmt: skip
        by_aspect.setdefault(aspect, set()).add(pair)
    graphs = {}
    for aspect in sorted(by_aspect):
        pairs = torch.tensor(sorted(by_aspect[aspect])).numpy()
        graphs[aspect] = Graph(pairs // width, pairs % width, data.n_users, data.n_items)
    return graphs


class AspectViewsHook(nn.Module):
    """Joins the backbone's vectors with those of one LightGCN per aspect."""

    def __init__(
        self, graphs: dict[str, Graph], *, n_users: int, n_items: int, dim: int, std: float,
        layers: int, how: str, implicit: bool, l2: float, strength: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.aspects = tuple(graphs)
        self.graphs = nn.ModuleList(graphs.values())
        self.n_users, self.depth = n_users, layers
        self.how, self.implicit, self.l2, self.strength = how, implicit, l2, strength
        size = n_users + n_items + 2
        self.tables = nn.ParameterList(torch.randn(size, dim) * std for _ in graphs)
        with torch.no_grad():
            for table in self.tables:
                table[[0, n_users + 1]] = 0
        self._made_for: Any = None  # the step whose views are kept
        self._made: Any = None

    def layers(self) -> list[list[Tensor]]:
        """Return the vectors (U + N + 2, D) of each aspect after 0 .. depth steps."""
        pairs = zip(self.graphs, self.tables, strict=True)
        return [graph.layers(table, self.depth) for graph, table in pairs]

    def views(self, model: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Return the views of users (U + 1, D) and of items (N + 1, D), once per step."""
        step = model._vectors
        if step is not None and self._made_for is step:
            return self._made
        means = [sum(x[1:], x[0]) / len(x) * self.strength for x in self.layers()]
        split = [mean.tensor_split([self.n_users + 1]) for mean in means]
        made = [users for users, _ in split], [items for _, items in split]
        if step is not None:
            self._made_for, self._made = step, made
        return made

    def by_item(self) -> list[Tensor]:
        """Return what an item of a stranger's history adds to the view of each aspect."""
        degrees = [graph.degree[self.n_users + 1 :] for graph in self.graphs]
        return [
            added_by_history([x[self.n_users + 1 :] for x in layers], degree) * self.strength
            for layers, degree in zip(self.layers(), degrees, strict=True)
        ]

    def item_output(self, model: Any, nxt: Any, ids: Tensor | None) -> Tensor:
        if not self.strength:
            return nxt(ids)
        views = [v if ids is None else v[ids] for v in self.views(model)[1]]
        return joined(self.how, nxt(ids) if self.implicit else None, views)

    def user_state(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        if not self.strength:
            return nxt(batch)
        users = self.views(model)[0]
        own = nxt(batch) if self.implicit else None
        if getattr(batch, "items", None) is None:
            return joined(self.how, own, [u[batch.user] for u in users])
        pairs = zip(users, self.by_item(), strict=True)
        return joined(self.how, own, [of_users(batch, u, added) for u, added in pairs])

    def extra_loss(self, model: Any, batch: Any, states: Tensor) -> Tensor | float:
        if not self.l2:
            return 0.0
        rows = [batch.user, batch.positive + self.n_users + 1]
        if batch.negative is not None and len(batch.negative) == len(batch.positive):
            rows.append(batch.negative.flatten() + self.n_users + 1)
        norms = [table[r].square().sum() for table in self.tables for r in rows]
        return 0.5 * self.l2 * sum(norms[1:], norms[0]) / len(batch.user)

    def fold(self, model: Any) -> ServedUserViews | None:
        """Return the tables of users; the items' views are in the model's own table."""
        if not self.strength:
            return None
        return served_views(self.how, self.implicit, self.views(model)[0], self.by_item())
