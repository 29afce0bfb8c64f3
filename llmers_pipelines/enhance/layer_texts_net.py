"""The network of texts per layer. Shapes: U users, N items, R rounds, D width, E text, B batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..models.contrast_net import info_nce
from .user_views_net import ServedUserViews, joined, of_users, served_views


class LayerTextsHook(nn.Module):
    """Joins the backbone's vectors with projected texts of each round."""

    def __init__(
        self, rounds: Sequence[Mapping[str, tuple[Tensor, Tensor]]], *, n_users: int, n_items: int,
        dim: int, how: str, weight: float, tau: float, strength: float,
    ) -> None:  # fmt: skip
        """``rounds``: by side, vectors (n + 1, E) by position and which rows are real."""
        super().__init__()
        widths = {side: {v.shape[1] for v, _ in by_side.values()} for side, by_side in
                  enumerate(rounds)}  # fmt: skip
        if len(found := set().union(*widths.values())) > 1:
            raise ValueError(f"texts of different widths, {sorted(found)}: one matrix reads all "
                             "rounds; encode them with one encoder")  # fmt: skip
        self.sides = tuple(tuple(by_side) for by_side in rounds)
        for number, by_side in enumerate(rounds):
            for side, (vectors, real) in by_side.items():
                self.register_buffer(f"{side}{number}", vectors, persistent=False)
                self.register_buffer(f"{side}{number}_real", real, persistent=False)
        self.sizes = {"user": n_users + 1, "item": n_items + 1}
        self.project = nn.Linear(found.pop(), dim, bias=False)
        self.how, self.weight, self.tau, self.strength = how, weight, tau, strength

    def text(self, side: str, number: int) -> Tensor:
        """Return ``x^l W`` (n + 1, D) of a side; zero where a side has no texts in that round."""
        if side not in self.sides[number]:
            return self.project.weight.new_zeros(self.sizes[side], self.project.out_features)
        return self.project(getattr(self, f"{side}{number}"))

    def views(self, side: str) -> list[Tensor]:
        """Return what is joined with the backbone's vectors of a side, each (n + 1, D)."""
        texts = [self.text(side, n) * self.strength for n in range(len(self.sides))]
        return [sum(texts[1:], texts[0]) / len(texts)] if self.how == "sum" else texts

    def item_output(self, model: Any, nxt: Any, ids: Tensor | None) -> Tensor:
        if not self.strength:
            return nxt(ids)
        views = [v if ids is None else v[ids] for v in self.views("item")]
        return joined(self.how, nxt(ids), views)

    def user_state(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        if not self.strength:
            return nxt(batch)
        nothing = self._nothing()
        views = [of_users(batch, v, nothing) for v in self.views("user")]
        return joined(self.how, nxt(batch), views)

    def _nothing(self) -> Tensor:
        """A stranger has no text: the history adds nothing."""
        return self.project.weight.new_zeros(self.sizes["item"], self.project.out_features)

    def extra_loss(self, model: Any, batch: Any, states: Tensor) -> Tensor | float:
        """Return ``weight`` times the mean contrast between graph and text of equal layers."""
        if not self.weight:
            return 0.0
        rows = {"user": batch.user.unique(), "item": batch.positive.unique()}
        losses = []
        for number, layer in enumerate(model.layers()[: len(self.sides)]):
            users, items = layer.tensor_split([self.sizes["user"]])
            for side, graph in (("user", users), ("item", items)):
                if side not in self.sides[number]:
                    continue
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
        users = self.views("user")
        return served_views(self.how, True, users, [self._nothing()] * len(users))
