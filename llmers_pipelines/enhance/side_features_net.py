"""The encoder and losses of side features. Shapes: B batch, U users, N items, E text, D width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ..data.training import TRAIN
from ..models.factor_net import history_sum
from ..models.histories import rows_of, unique_pairs
from ..models.losses_net import masked_restoration, pruned
from ..models.sparse_net import csr

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class Kind:
    """One kind of feature: vectors (n + 1, E) of a side by position, and which rows are real."""

    name: str  # text, profile or attribute
    side: str  # item or user
    c: float
    vectors: Tensor
    real: Tensor


@dataclass(frozen=True)
class Losses:
    """Weights and settings of the losses, see ``SideFeatures``."""

    profile_attribute: float
    modality: float
    l2: float
    restore: float
    mask: float
    gamma: float
    drop: float
    keep: str


class _Product(torch.autograd.Function):
    """``A X`` for a sparse A whose transpose is at hand: the gradient is its product."""

    @staticmethod
    def forward(ctx, matrix: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
        ctx.transposed = transposed
        return matrix @ x

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.transposed @ grad.contiguous()


class Means(nn.Module):
    """Means over the items of a user and over the users of an item, by the training rows."""

    def __init__(self, data: TrainingData) -> None:
        super().__init__()
        log = rows_of(data, (TRAIN,))
        user, item = unique_pairs(log.user, log.item, data.n_items)
        self.shape = (data.n_users + 1, data.n_items + 1)
        by_item = np.lexsort((user, item))
        per_user = np.bincount(user, minlength=self.shape[0])
        per_item = np.bincount(item, minlength=self.shape[1])
        arrays = {
            "user_start": np.concatenate([[0], np.cumsum(per_user)]), "user_column": item,
            "item_start": np.concatenate([[0], np.cumsum(per_item)]),
            "item_column": user[by_item],
            # (users, items) order of entries, then (items, users) order, for both normalizations
            "user_value": (1 / per_user[user]).astype(np.float32),
            "user_value_t": (1 / per_user[user[by_item]]).astype(np.float32),
            "item_value": (1 / per_item[item[by_item]]).astype(np.float32),
            "item_value_t": (1 / per_item[item]).astype(np.float32),
        }  # fmt: skip
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    def of_users(self, items: Tensor) -> Tensor:
        """Return (U + 1, D): the mean over each user's items; zero where there is none."""
        mean = csr(self.user_start, self.user_column, self.user_value, self.shape)
        back = csr(self.item_start, self.item_column, self.user_value_t, self.shape[::-1])
        return _Product.apply(mean, back, items)

    def of_items(self, users: Tensor) -> Tensor:
        """Return (N + 1, D): the mean over each item's users; zero where there is none."""
        mean = csr(self.item_start, self.item_column, self.item_value, self.shape[::-1])
        back = csr(self.user_start, self.user_column, self.item_value_t, self.shape)
        return _Product.apply(mean, back, users)

    def views(self, side: str, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x_u (U + 1, D), x_i (N + 1, D)) of the projected features of a side."""
        if side == "item":
            users = self.of_users(projected)
            return users, self.of_items(users)
        items = self.of_items(projected)
        return self.of_users(items), items


class SideFeaturesHook(nn.Module):
    """Adds normalized views of text features to users and items."""

    def __init__(self, kinds: list[Kind], losses: Losses, data: TrainingData, dim: int) -> None:
        super().__init__()
        self.kinds, self.losses = kinds, losses
        self.means = Means(data)
        self.project = nn.ModuleList(nn.Linear(k.vectors.shape[1], dim, bias=False) for k in kinds)
        self.decode = nn.ModuleList(
            nn.Linear(dim, k.vectors.shape[1]) for k in kinds if losses.restore
        )
        for number, k in enumerate(kinds):
            self.register_buffer(f"vectors{number}", k.vectors, persistent=False)
            self.register_buffer(f"real{number}", k.real, persistent=False)
        self._made_for: Any = None  # the step whose views are kept
        self._made: Any = None

    def vectors(self, number: int) -> Tensor:
        return getattr(self, f"vectors{number}")

    def made(self, model: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return (g, x_u, x_i) of each kind, once per step (the model keeps its vectors so)."""
        step = model._vectors
        if step is None or self._made_for is not step:
            found = []
            for number, kind in enumerate(self.kinds):
                g = self.project[number](self.vectors(number))
                found.append((g, *self.means.views(kind.side, g)))
            if step is None:
                return found
            self._made_for, self._made = step, found
        return self._made

    @property
    def _adds(self) -> bool:
        return any(k.c for k in self.kinds)

    def user_state(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        """Return (B, D): from the training graph, or from the histories that a batch brings."""
        state = nxt(batch)
        if not self._adds:
            return state
        made, items = self.made(model), getattr(batch, "items", None)
        if items is None:
            views = [users[batch.user] for _, users, _ in made]
        else:
            views = [history_mean(items, told(k.side, m)) for k, m in zip(self.kinds, made,
                                                                         strict=True)]  # fmt: skip
        return state + weighted([k.c for k in self.kinds], views)

    def item_output(self, model: Any, nxt: Any, ids: Tensor | None) -> Tensor:
        outputs = nxt(ids)
        if not self._adds:
            return outputs
        views = [x if ids is None else x[ids] for _, _, x in self.made(model)]
        return outputs + weighted([k.c for k in self.kinds], views)

    def extra_loss(self, model: Any, batch: Any, states: Tensor) -> Tensor | float:
        how = self.losses
        if not (how.profile_attribute or how.modality or how.l2 or how.restore):
            return 0.0
        made = self.made(model)
        by_name: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
        for kind, m in zip(self.kinds, made, strict=True):
            by_name.setdefault(kind.name, []).append(m)
        user, better, worse = batch.user, batch.positive, one_negative(batch)
        total: Tensor | float = 0.0
        if how.profile_attribute and "profile" in by_name:
            profile = by_name["profile"][0][0][user]
            for g, _, _ in by_name.get("attribute", ()):
                losses = pair_bpr(profile, g[better], g[worse])
                total = total + how.profile_attribute * pruned(losses, how.drop, how.keep).mean()
        if how.modality and "text" in by_name:
            _, users, items = by_name["text"][0]
            losses = pair_bpr(users[user], items[better], items[worse])
            total = total + how.modality * losses.mean()
        if how.l2:
            rows = {"item": better, "user": user}
            norms = [m[0][rows[k.side]].square().sum(1).mean()
                     for k, m in zip(self.kinds, made, strict=True)]  # fmt: skip
            total = total + 0.5 * how.l2 * sum(norms)
        if how.restore:
            total = total + how.restore * self.restoration(made)
        return total

    def restoration(self, made: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        """Return the sum over kinds of the masked-restoration loss."""
        how = self.losses
        total = made[0][0].new_zeros(())
        for number, (kind, (g, _, _)) in enumerate(zip(self.kinds, made, strict=True)):
            real = getattr(self, f"real{number}")
            chosen = real & (torch.rand(len(real)).to(real.device) < how.mask)
            rows = chosen.nonzero()[:, 0]
            # W is linear: the projected mean is the mean of the projected rows.
            masked = torch.where(chosen[:, None], g[real].mean(0), g)
            users, items = self.means.views(kind.side, masked)
            own = items if kind.side == "item" else users
            restored = self.decode[number](own[rows])
            total = total + masked_restoration(restored, self.vectors(number)[rows], how.gamma)
        return total

    def fold(self, model: Any) -> ServedSideFeatures | None:
        """Return the tables that user states need; item views are in the model's table."""
        if not self._adds:
            return None
        tables = [told(k.side, m) for k, m in zip(self.kinds, self.made(model), strict=True)]
        served = ServedSideFeatures([k.c for k in self.kinds], *tables[0].shape)
        served.tables.copy_(torch.stack(tables).to(served.tables.device))
        return served.to(tables[0].device)


class ServedSideFeatures(nn.Module):
    """User states with side features from the history alone."""

    def __init__(self, weights: list[float], rows: int, dim: int) -> None:
        super().__init__()
        self.config = {"weights": weights, "rows": rows, "dim": dim}
        self.weights = weights
        self.register_buffer("tables", torch.zeros(len(weights), rows, dim))

    def user_state(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        views = [history_mean(batch.items, table) for table in self.tables]
        return nxt(batch) + weighted(self.weights, views)


def told(side: str, made: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return (N + 1, D): the item table whose mean over a history is the user's view."""
    projected, _, items = made
    return projected if side == "item" else items


def history_mean(items: Tensor, table: Tensor) -> Tensor:
    """Return (B, D): the mean of ``table`` over the distinct items of each history (B, L)."""
    total, count = history_sum(items, table)
    return total / count


def weighted(weights: list[float], views: list[Tensor]) -> Tensor:
    """Return ``sum_k c_k x_k / |x_k|``; a zero vector stays zero."""
    parts = [c * F.normalize(x, dim=-1) for c, x in zip(weights, views, strict=True)]
    return sum(parts[1:], parts[0])


def pair_bpr(user: Tensor, better: Tensor, worse: Tensor) -> Tensor:
    """Return (B,): ``-ln sigmoid(<u, i> - <u, j>)`` of each row."""
    return F.softplus((user * (worse - better)).sum(-1))


def one_negative(batch: Any) -> Tensor:
    """Return one sampled negative per row, (B,): the own one, or the shared ones in turn."""
    negative = batch.negative
    if len(negative) == len(batch.positive):
        return negative[:, 0]
    turn = torch.arange(len(batch.positive), device=negative.device) % negative.shape[1]
    return negative[0, turn]
