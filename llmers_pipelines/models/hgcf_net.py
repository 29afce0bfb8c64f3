"""The network of HGCF and its served form. Shapes: B batch, U users, N items, D width, L layers.

States are ``dual`` and item outputs ``lifted`` points of width D + 1, so their plain product is the
Lorentz product, by which everything downstream scores, ranks and searches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .factor_net import FactorNet, history_sum
from .graph_net import training_graph
from .hyperboloid_net import dual, exp0, lifted, log0, squared_distance
from .met import forget, met_of
from .product_net import Product

if TYPE_CHECKING:
    from ..data.training import TrainingData

WHOLE = (
    100  # items per negative up to which a product with all of them is cheaper than rows of them
)


class HyperbolicNet(FactorNet):
    """A ``FactorNet`` whose tables are points, by their spatial coordinates; see ``HGCF``."""

    def __init__(
        self, data: TrainingData, *, dim: int, layers: int, margin: float, adaptive: bool,
        momentum: float, spread: float, parts_lr: float,
    ) -> None:  # fmt: skip
        super().__init__(
            n_users=data.n_users, n_items=data.n_items, dim=dim, objective="bpr", temperature=1.0,
            l2=0.0, table_std=spread, layers=layers,
        )  # fmt: skip
        self.margin, self.adaptive, self.momentum = margin, adaptive, momentum
        self.parts_lr = parts_lr
        with torch.no_grad():
            for table in self.on_manifold():
                table.copy_(exp0(table.uniform_(-spread, spread)))[0] = 0
            forget(self.user_table.weight, met_of(data).users)
        self.graph = training_graph(data)
        self.graph.value.fill_(1.0)  # edges are counted; the mean is taken outside

    def on_manifold(self) -> list[Tensor]:
        """Return the tables whose rows are points: a Riemannian optimizer moves them."""
        return [self.user_table.weight, self.item_table.weight]

    def _graph_input(self) -> Tensor:
        return log0(super()._graph_input())

    def _propagated(self) -> list[Tensor]:
        assert self.graph is not None
        out, size = [self.start()], (self.graph.degree + 1)[:, None]
        for _ in range(self.depth):
            out.append((out[-1] + self.graph.layers(out[-1], 1)[1]) / size)
        return out

    def points(self) -> tuple[Tensor, Tensor]:
        """Return users (U + 1, D) and items (N + 1, D) as points; made once per training step."""
        return self._final()

    def _final(self) -> tuple[Tensor, Tensor]:
        if self._vectors is not None:
            return self._vectors
        layers = self._propagated()
        found = exp0(torch.stack(layers[1:]).sum(0))
        users, items = found.tensor_split([self.config["n_users"] + 1])
        return users, items

    def _parts(self) -> tuple[Tensor, Tensor]:
        """Return the users' own tangent vectors (U + 1, D) and the items' layers (N + 1, L D)."""
        if self._added is not None:
            return self._added
        layers, users = self._propagated(), self.config["n_users"] + 1
        return layers[0][:users], torch.cat([x[users:] for x in layers[:-1]], 1)

    def _user_state(self, batch: Any) -> Tensor:
        if getattr(batch, "items", None) is None:
            return dual(self._final()[0][batch.user])
        own, below = self._parts()
        return dual(exp0(tangent_of(own[batch.user], batch.items, below)))

    def _item_output(self, ids: Tensor | None) -> Tensor:
        items = self._final()[1]
        return lifted(items if ids is None else items[ids])

    def _pair_loss(self, batch: Any, states: Tensor) -> Tensor:
        """Return the hinge on squared distances, each pair against its hardest negative."""
        items = self.item_output()
        positive = items[batch.positive]
        hard = nearest(items.detach(), positive.detach(), batch.negative)
        own, other = ((states * x).sum(-1) for x in (positive, items[hard]))
        width = self.margin
        if self.adaptive:
            width = self.margin * hierarchy(own, -states[:, 0], positive[:, 0]).sigmoid()
        return F.relu(squared_distance(own) - squared_distance(other) + width).mean()

    def folded(self) -> ServedPoints:
        own, below = self._parts()
        sizes = {n: self.config[n] for n in ("n_users", "n_items", "dim")}
        served = ServedPoints(**sizes, layers=self.depth)
        served.own.copy_(own)
        served.below.copy_(below)
        served.items.copy_(self.item_output())
        return served.to(own.device)


def hierarchy(inner: Tensor, user: Tensor, item: Tensor) -> Tensor:
    """Return ``-(1 - <u, i>_L - u0 - i0) / (u0 i0)`` of products and times, all (B,).

    The ratio by which HICF widens the margin: 0 where one of both is the origin, positive where
    they are near to each other for their distance to it, negative where they are far.
    """
    return -(1 - inner - user - item) / (user * item)


def nearest(items: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Return (B,): that of ``negative`` (B, K), ids of lifted ``items`` (N + 1, D + 1), which is
    nearest to the lifted ``positive`` (B, D + 1), the first of equally near ones."""
    if negative.shape[1] == 1:
        return negative[:, 0]
    own = torch.cat([-positive[:, :1], positive[:, 1:]], 1)
    if len(items) <= WHOLE * negative.shape[1]:
        near = (own @ items.T).gather(1, negative)
    else:
        near = torch.einsum("bkd,bd->bk", items[negative], own)
    return negative.gather(1, near.argmax(1, keepdim=True))[:, 0]


def tangent_of(own: Tensor, items: Tensor, below: Tensor) -> Tensor:
    """Return (B, D), the sum over layers of users who have ``own`` (B, D) at layer 0 and the
    histories ``items`` (B, L'), 0 as padding; ``below`` (N + 1, L D) are items at layers 0..L-1.
    """
    total, count = history_sum(items, below)
    size = 1 + count * (items > 0).any(1, keepdim=True)
    out = torch.zeros_like(own)
    for layer in total.split(own.shape[1], 1):
        own = (own + layer) / size
        out = out + own
    return out


class ServedPoints(nn.Module):
    """What is served: tables, and one exponential map per request."""

    is_kept = True

    def __init__(self, n_users: int, n_items: int, dim: int, layers: int) -> None:
        super().__init__()
        self.config = {"n_users": n_users, "n_items": n_items, "dim": dim, "layers": layers}
        self.hooks = nn.ModuleList()
        self.register_buffer("own", torch.zeros(n_users + 1, dim))
        self.register_buffer("below", torch.zeros(n_items + 1, layers * dim))
        self.register_buffer("items", torch.zeros(n_items + 1, dim + 1))

    def user_state(self, batch: Any) -> Tensor:
        """Return (B, D + 1) for the histories of ``batch``."""
        return dual(exp0(tangent_of(self.own[batch.user], batch.items, self.below)))

    def item_output(self, ids: Tensor | None = None) -> Tensor:
        return self.items if ids is None else self.items[ids]

    def score(self, state: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return ``<u, i>_L``, (B, N + 1) or (B, K)."""
        return state @ self.item_output(ids).T

    def as_product(self, state: Tensor) -> Product:
        return Product(state, self.items)

    def keep(self) -> None:
        """Nothing is to be computed: the tables are final."""

    def release(self) -> None:
        """See ``keep``."""
