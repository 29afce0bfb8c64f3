"""The network of BPR-MF and LightGCN: a vector per user and item, a graph if there is one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .graph_net import Graph, added_by_history
from .hooks_net import extra_losses, overrides, seeded
from .losses_net import (
    bce,
    bpr,
    corrected_softmax,
    full_cross_entropy,
    in_batch_others,
    log_share,
    sampled_softmax,
    shared_softmax,
)
from .met import forget, met_of
from .product_net import Product
from .seams import through

SOFTMAX = ("ssm", "ce", "in_batch")  # on cosines over a temperature
OBJECTIVES = ("bpr", "bce", *SOFTMAX)


class FactorNet(nn.Module):
    """``s = <e_u, e_j>``, or their cosine over ``temperature`` for the softmax objectives.

    "bpr" and "bce" compare with one negative of the batch, "ssm" with those that it shares, "ce"
    with the whole catalog, "in_batch" with the batch's other positives, corrected for their
    training share (``log_q``).

    With a graph, a user is scored from the history that is given, by the propagation rule: ``e_u =
    (e_u^0 + |H|^-1/2 sum_{i in H} d_i^-1/2 sum_{k < K} e_i^k) / (K + 1)``. For the training history
    that is the trained vector; more history, or an unknown user, needs no training. Without a
    graph a known user has the trained vector, an unknown one the mean of the history's vectors. A
    user whose row is zero is unknown: nothing trained it and no part wrote it.
    """

    def __init__(
        self, *, n_users: int, n_items: int, dim: int, objective: str, temperature: float,
        l2: float, table_std: float, layers: int = 0, item_dim: int = 0,
    ) -> None:  # fmt: skip
        """``item_dim`` > 0: a folded net, with item outputs of that width in a table of its own."""
        super().__init__()
        if objective not in OBJECTIVES:
            raise ValueError(f"unknown loss {objective!r}: use one of {OBJECTIVES}")
        self.config = {
            "n_users": n_users, "n_items": n_items, "dim": dim, "objective": objective,
            "temperature": temperature, "l2": l2, "table_std": table_std, "layers": layers,
            "item_dim": item_dim,
        }  # fmt: skip
        self.depth, self.l2, self.objective = layers, l2, objective
        self.temperature = temperature
        self.hooks = nn.ModuleList()
        self.user_table = nn.Embedding(n_users + 1, dim, padding_idx=0)
        self.item_table = nn.Embedding(n_items + 1, dim, padding_idx=0)
        self.output_table = nn.Parameter(torch.zeros(n_items + 1, item_dim)) if item_dim else None
        with torch.no_grad():
            self.user_table.weight.normal_(0, table_std)[0] = 0
            self.item_table.weight.normal_(0, table_std)[0] = 0
        self.graph: Graph | None = None
        self._vectors: tuple[Tensor, Tensor] | None = None  # within one step, or while kept
        self._added: tuple[Tensor, Tensor] | None = None  # while kept
        self._in_step = False
        self._layers: list[Tensor] | None = None  # within one step, once a part asked for them
        self.register_buffer("log_q", None, persistent=False)  # (N + 1,), only for "in_batch"
        self._targets: Tensor | None = None  # item outputs as `score` uses them, while kept

    @classmethod
    def of(cls, how: Any, data: Any, seed: int, **more: Any) -> Any:
        """Return the untrained network of ``how``: BPRMF, or settings that have its fields."""
        with seeded(seed):
            net = cls(
                n_users=data.n_users, n_items=data.n_items, dim=how.dim, objective=how.loss,
                temperature=how.temperature, l2=how.l2, table_std=how.table_std, **more,
            )  # fmt: skip
        met = met_of(data)
        forget(net.user_table.weight, met.users)
        if how.loss == "in_batch":  # under other losses all items are negatives
            forget(net.item_table.weight, met.items)
        net.log_q = log_share(data.train_counts) if how.loss == "in_batch" else None
        return net

    def _propagated(self) -> list[Tensor]:
        """Return the vectors of all entities, users first, after 0 .. depth steps."""
        return self.graph.layers(self.start(), self.depth)

    def start(self) -> Tensor:
        """Return what is propagated: vectors of users, then of items, (U + N + 2, D)."""
        return through(self, "graph_input")

    def _graph_input(self) -> Tensor:
        return torch.cat([self.user_table.weight, self.item_table.weight])

    def layers(self) -> list[Tensor]:
        """Return the vectors (U + N + 2, D) after 0 .. depth steps; made once per training step."""
        if self._layers is not None:
            return self._layers
        made = self._propagated()
        if self._in_step:
            self._layers = made
        return made

    def _final(self) -> tuple[Tensor, Tensor]:
        """Return e_u (U + 1, D) and e_i (N + 1, D)."""
        if self._vectors is not None:
            return self._vectors
        if self.graph is None:
            items = self.item_table.weight if self.output_table is None else self.output_table
            return self.user_table.weight, items
        mean = self.graph.mean(self.start(), self.depth)
        return mean.tensor_split([self.config["n_users"] + 1])

    def _parts(self) -> tuple[Tensor, Tensor]:
        """Return what a user (U + 1, D) and each history item (N + 1, D) add to a state."""
        if self._added is not None:
            return self._added
        if self.graph is None:  # no propagation, or it is already in the tables
            return self.user_table.weight, self.item_table.weight
        layers, users = self._propagated(), self.config["n_users"] + 1
        added = added_by_history([x[users:] for x in layers], self.graph.degree[users:])
        return layers[0][:users] / len(layers), added

    def user_state(self, batch: Any) -> Tensor:
        """Return (B, D); a batch with ``items`` (histories) is scored from these."""
        return through(self, "user_state", batch)

    def _user_state(self, batch: Any) -> Tensor:
        items = getattr(batch, "items", None)
        if items is None:
            return self._final()[0][batch.user]
        own, added = self._parts()
        state = own[batch.user]
        known = state.any(1, keepdim=True)
        if not self.depth and bool(known.all()):
            return state
        total, count = history_sum(items, added)
        if self.depth:
            return state + total / count.sqrt()
        return torch.where(known, state, total / count)

    def item_output(self, ids: Tensor | None = None) -> Tensor:
        """Return (N + 1, D) for all items, or (..., D) for ``ids``."""
        return through(self, "item_output", ids)

    def _item_output(self, ids: Tensor | None) -> Tensor:
        items = self._final()[1]
        return items if ids is None else items[ids]

    def _compared(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.objective in SOFTMAX else vectors

    @property
    def _scale(self) -> float:
        return 1 / self.temperature if self.objective in SOFTMAX else 1.0

    def score(self, state: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return (B, N + 1) for all items or (B, K) for ``ids`` (K,); column 0 means nothing."""
        return through(self, "score", state, ids)

    def _score(self, state: Tensor, ids: Tensor | None) -> Tensor:
        if self._targets is None:
            targets = self._compared(self.item_output(ids))
        else:
            targets = self._targets if ids is None else self._targets[ids]
        scores = self._compared(state) @ targets.T
        # in place: a second block of scores would cost a tenth of the product
        return scores.mul_(self._scale) if self._scale != 1 else scores

    def as_product(self, state: Tensor) -> Product | None:
        """Return the factors of ``score(state)``; None where a hook scores in its own way."""
        if overrides(self, "score"):
            return None
        items = self._compared(self.item_output()) if self._targets is None else self._targets
        return Product(self._compared(state), items, self._scale)

    def loss(self, batch: Any) -> Tensor:
        """The objective on the batch, ``l2 / 2 |E^0|^2`` per pair, plus extra losses."""
        self._in_step, self._vectors = True, self._final()
        try:
            states = self.user_state(batch)  # (B, D)
            main = through(self, "pair_loss", batch, states)
            return main + self._penalty(batch) + extra_losses(self, batch, states)
        finally:
            self._in_step, self._vectors, self._layers = False, None, None

    def _pair_loss(self, batch: Any, states: Tensor) -> Tensor:
        compare = self._by_score if overrides(self, "score") else self._by_product
        return compare(batch, states)

    def pair_losses(self, batch: Any, states: Tensor) -> Tensor:
        """Return the objective of each pair, (B,): their mean is the loss without hooks."""
        ids, log_weight = self._others(batch)
        if overrides(self, "score"):
            scores = self.score(states)
            positive = scores.gather(1, batch.positive[:, None])
            negative = scores.gather(1, ids.expand(len(scores), -1))
        else:
            users = self._compared(states) * self._scale
            positive = (users * self._compared(self.item_output(batch.positive))).sum(1)[:, None]
            others = self._compared(self.item_output(ids))  # (B or 1, K, D)
            shared = len(others) == 1
            negative = users @ others[0].T if shared else (users[:, None] * others).sum(-1)
        if self.objective == "bpr":
            return F.softplus(negative - positive).mean(1)
        if self.objective == "bce":
            return (F.softplus(-positive) + F.softplus(negative)).mean(1)
        same = ids == batch.positive[:, None]
        negative = negative if log_weight is None else negative + log_weight
        both = torch.cat([positive, negative.masked_fill(same, -torch.inf)], 1)
        return torch.logsumexp(both, 1) - positive[:, 0]

    def _others(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """Return the items (B or 1, K) that a positive is compared with, and their log weights."""
        if self.objective == "ce":
            device = batch.positive.device
            return torch.arange(1, self.config["n_items"] + 1, device=device)[None], None
        if self.objective == "in_batch":
            ids, log_weight = in_batch_others(batch.positive, self.log_q)
            return ids[None], log_weight
        return batch.negative, None

    def pair_scores(self, states: Tensor, ids: Tensor) -> Tensor:
        """Return s(u, i), (A,), for user states (A, D) and item ids (A,)."""
        if overrides(self, "score"):
            return self.score(states).gather(1, ids[:, None])[:, 0]
        users = self._compared(states) * self._scale
        return (users * self._compared(self.item_output(ids))).sum(-1)

    def margins(self, states: Tensor, better: Tensor, worse: Tensor) -> Tensor:
        """Return s(u, better) - s(u, worse), (A,), for user states (A, D) and item ids (A,)."""
        if overrides(self, "score"):
            scores = self.score(states)
            both = (scores.gather(1, ids[:, None])[:, 0] for ids in (better, worse))
        else:
            users = self._compared(states) * self._scale
            both = ((users * self._compared(self.item_output(ids))).sum(-1)
                    for ids in (better, worse))  # fmt: skip
        above, below = both
        return above - below

    def _by_product(self, batch: Any, states: Tensor) -> Tensor:
        users = self._compared(states) * self._scale
        if self.objective == "ce":
            return full_cross_entropy(users, self._compared(self.item_output()), batch.positive)
        positive = self._compared(self.item_output(batch.positive))
        if self.objective == "in_batch":
            ids, log_weight = in_batch_others(batch.positive, self.log_q)
            others, same = self._compared(self.item_output(ids)), ids == batch.positive[:, None]
            return corrected_softmax(users, positive, others, log_weight, same)
        negative = self._compared(self.item_output(batch.negative))  # (B or 1, K, D)
        if self.objective == "ssm" and len(batch.negative) == 1:
            same = batch.negative == batch.positive[:, None]
            return shared_softmax(users, positive, negative[0], same)
        return self._objective(
            batch, (users * positive).sum(-1), (users[:, None] * negative).sum(-1), batch.negative
        )

    def _by_score(self, batch: Any, states: Tensor) -> Tensor:
        scores = self.score(states)  # a hook may score in any way
        ids, log_weight = self._others(batch)
        positive = scores.gather(1, batch.positive[:, None])[:, 0]
        negative = scores.gather(1, ids.expand(len(scores), -1))
        negative = negative if log_weight is None else negative + log_weight
        return self._objective(batch, positive, negative, ids)

    def _objective(self, batch: Any, positive: Tensor, negative: Tensor, ids: Tensor) -> Tensor:
        """positive (B,), negative (B, K), ids (B or 1, K) of the negatives."""
        if self.objective == "bpr":
            return bpr(positive, negative)
        if self.objective == "bce":
            return bce(positive, negative)
        same = ids == batch.positive[:, None]
        return sampled_softmax(positive, negative.masked_fill(same, -torch.inf))

    def _penalty(self, batch: Any) -> Tensor | float:
        if not self.l2:
            return 0.0
        rows = [self.user_table(batch.user), self.item_table(batch.positive)]
        if batch.negative is not None and len(batch.negative) == len(batch.positive):
            rows.append(self.item_table(batch.negative))
        return 0.5 * self.l2 * sum(r.square().sum() for r in rows) / len(batch.user)

    def keep(self) -> None:
        """Compute propagation and item outputs once, until ``release``."""
        self._vectors = self._final()
        self._added = self._parts()
        self._targets = self._compared(self.item_output()).detach().contiguous()

    def release(self) -> None:
        self._vectors = self._added = self._targets = None

    @property
    def is_kept(self) -> bool:
        return self._targets is not None

    def folded(self) -> FactorNet:
        """Return plain tables: propagation and item hooks are in them, the graph is gone."""
        own, added = self._parts()
        outputs = self.item_output()
        tied = self.output_table is None and torch.equal(outputs, added)
        copy = FactorNet(**{**self.config, "item_dim": 0 if tied else outputs.shape[1]})
        with torch.no_grad():
            copy.user_table.weight.copy_(own)
            copy.item_table.weight.copy_(added)
            if copy.output_table is not None:
                copy.output_table.copy_(outputs)
        return copy.to(outputs.device)


def history_sum(items: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of ``table`` over the distinct items of each history, and how many they are.

    items (B, L) with 0 as padding; the sum is (B, D), the count (B, 1) and at least 1.
    """
    ordered = items.sort(1).values
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    weight = (new & (ordered > 0)).to(table.dtype)
    total = F.embedding_bag(ordered, table, per_sample_weights=weight, mode="sum")
    return total, weight.sum(1, keepdim=True).clamp(min=1)
