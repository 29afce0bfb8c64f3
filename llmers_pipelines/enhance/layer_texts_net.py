"""The network of texts per layer. Shapes: U users, N items, R rounds, D width, E text, B batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.training import TRAIN
from ..models.contrast_net import info_nce
from ..models.histories import rows_of, unique_pairs
from .user_views_net import ServedUserViews, joined, of_users, served_views

if TYPE_CHECKING:
    from ..data.training import TrainingData

Told = tuple[Tensor, Tensor]  # vectors (n + 1, E) by position, which rows have a text (n + 1,)


def with_users(rounds: Sequence[Mapping[str, Told]], data: TrainingData) -> list[dict[str, Told]]:
    """Return the rounds with a row of text for each user.

    A user without a text in a round has the mean of the vectors of the items of the training rows
    (each once) in that round; which rows have a text of their own stays as it was. Raises
    ValueError where widths differ.
    """
    if len(found := {v.shape[1] for told in rounds for v, _ in told.values()}) > 1:
        raise ValueError(f"texts of different widths, {sorted(found)}: one matrix reads all "
                         "rounds; encode them with one encoder")  # fmt: skip
    rows = rows_of(data, (TRAIN,))
    pairs = unique_pairs(rows.user, rows.item, data.n_items)
    user, item = (torch.from_numpy(p.astype(np.int64)) for p in pairs)
    count = torch.bincount(user, minlength=data.n_users + 1).clamp(min=1)[:, None]
    start = torch.searchsorted(user, torch.arange(data.n_users + 1))
    out = []
    for told in rounds:
        vectors = told["item"][0]
        means = F.embedding_bag(item, vectors, start, mode="sum") / count
        if "user" in told:
            own, real = told["user"]
            means = torch.where(real[:, None], own, means)
        else:
            real = torch.zeros(data.n_users + 1, dtype=torch.bool)
        out.append({"item": told["item"], "user": (means, real)})
    return out


class LayerTextsHook(nn.Module):
    """Joins the backbone's vectors with projected texts of each round."""

    def __init__(
        self, rounds: Sequence[Mapping[str, Told]], *, n_users: int, dim: int, how: str,
        weight: float, tau: float, strength: float,
    ) -> None:  # fmt: skip
        """``rounds``: texts of "user" and "item" of each."""
        super().__init__()
        self.rounds, self.n_users = len(rounds), n_users
        for number, by_side in enumerate(rounds):
            for side, (vectors, real) in by_side.items():
                self.register_buffer(f"{side}{number}", vectors, persistent=False)
                self.register_buffer(f"{side}{number}_real", real, persistent=False)
        self.project = nn.Linear(rounds[0]["item"][0].shape[1], dim, bias=False)
        self.how, self.weight, self.tau, self.strength = how, weight, tau, strength

    def views(self, side: str) -> list[Tensor]:
        """Return what is joined with the backbone's vectors of a side, each (n + 1, D)."""
        texts = [
            self.project(getattr(self, f"{side}{n}")) * self.strength for n in range(self.rounds)
        ]
        return [sum(texts[1:], texts[0]) / len(texts)] if self.how == "sum" else texts

    def item_output(self, model: Any, nxt: Any, ids: Tensor | None) -> Tensor:
        if not self.strength:
            return nxt(ids)
        views = [v if ids is None else v[ids] for v in self.views("item")]
        return joined(self.how, nxt(ids), views)

    def user_state(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        if not self.strength:
            return nxt(batch)
        # as one table, so that who has a text in one round is known in all, as served
        users, items = (torch.cat(self.views(side), 1) for side in ("user", "item"))
        return joined(self.how, nxt(batch), [of_users(batch, users, items, mean=True)])

    def extra_loss(self, model: Any, batch: Any, states: Tensor) -> Tensor | float:
        """Return ``weight`` times the mean contrast between graph and text of equal layers."""
        if not self.weight:
            return 0.0
        rows = {"user": batch.user.unique(), "item": batch.positive.unique()}
        losses = []
        for number, layer in enumerate(model.layers()[: self.rounds]):
            users, items = layer.tensor_split([self.n_users + 1])
            for side, graph in (("user", users), ("item", items)):
                ids = rows[side]
                ids = ids[getattr(self, f"{side}{number}_real")[ids]]
                if len(ids) > 1:
                    text = self.project(getattr(self, f"{side}{number}")[ids])
                    losses.append(info_nce(graph[ids], text, self.tau))
        if not losses:
            return 0.0
        return self.weight * torch.stack(losses).mean()

    def fold(self, model: Any) -> ServedUserViews | None:
        """Return the table of users; the items' texts are in the model's own table."""
        if not self.strength:
            return None
        return served_views(self.how, True, self.views("user"), self.views("item"), mean=True)
