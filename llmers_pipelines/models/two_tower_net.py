"""Network of the text two-tower. Shapes: B batch, L length, N items, D width."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout_net import dropout
from .losses_net import sampled_softmax
from .sequence_net import SequenceNet
from .two_tower import LOSSES


class TextTower(nn.Module):
    """Mean word vector of each text, joined -> MLP. ``words``: [vocabulary, length] per text."""

    def __init__(
        self, n_items: int, words: Sequence[Sequence[int]], word_dim: int, widths: Sequence[int]
    ) -> None:
        super().__init__()
        self.tables = nn.ParameterList(
            nn.Parameter(torch.randn(size + 1, word_dim) * word_dim**-0.5) for size, _ in words
        )
        for number, (_, length) in enumerate(words):
            self.register_buffer(f"codes_{number}", torch.zeros(n_items + 1, length).long())
        self.layers = _mlp([len(words) * word_dim, *widths])

    def fill(self, codes: Sequence[np.ndarray]) -> None:
        for number, array in enumerate(codes):
            getattr(self, f"codes_{number}").copy_(torch.from_numpy(array.astype(np.int64)))

    def forward(self, ids: Tensor, p: float) -> Tensor:
        """Return (n, D) of items (n,); ``p`` is the dropout of the words' means."""
        means = []
        for number, table in enumerate(self.tables):
            codes = getattr(self, f"codes_{number}")[ids]
            means.append(F.embedding_bag(codes, table, padding_idx=0, mode="mean"))
        return self.layers(dropout(torch.cat(means, 1), p, self.training))


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class TwoTowerNet(SequenceNet):
    """``s = <user tower(history), item tower(words)>``, both of length 1, over ``temperature``.

    Without ``words`` the net is folded: its item vectors are the rows of ``item_table``.
    """

    def __init__(
        self, *, n_items: int, words: Sequence[Sequence[int]], word_dim: int, dim: int,
        mlp: Sequence[int], item_id: bool, dropout: float, temperature: float, max_len: int,
        loss: str, output_dim: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"unknown loss {loss!r} of TwoTower: use one of {LOSSES}")
        self.config = {
            "n_items": n_items, "words": [list(w) for w in words], "word_dim": word_dim,
            "dim": dim, "mlp": list(mlp), "item_id": item_id, "dropout": dropout,
            "temperature": temperature, "max_len": max_len, "loss": loss, "output_dim": output_dim,
        }  # fmt: skip
        self.max_len, self.p, self.temperature = max_len, dropout, temperature
        self._tables(n_items, dim)
        self.tower = TextTower(n_items, words, word_dim, [*mlp, dim]) if words else None
        self.user = _mlp([2 * dim, *mlp, dim])
        self._start(n_items, output_dim, dim**-0.5)
        if words and not item_id:
            self.item_table.weight.requires_grad_(False).zero_()

    def fill(self, codes: Sequence[np.ndarray]) -> None:
        """Take the words int[N + 1, T] of each text."""
        assert self.tower is not None
        self.tower.fill(codes)

    def _unit(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) if self.temperature else x

    def _vectors(self, ids: Tensor) -> Tensor:
        """Return the item tower's (n, D); zero for padding."""
        assert self.tower is not None
        vectors = self._unit(self.tower(ids, self.p) + self.item_table(ids))
        return vectors * (ids > 0).unsqueeze(1)

    def _all(self) -> Tensor:
        return self._vectors(self._ids())

    def _ids(self) -> Tensor:
        return torch.arange(self.config["n_items"] + 1, device=self.item_table.weight.device)

    def _item_input(self, ids: Tensor) -> Tensor:
        if self.tower is None:
            return self.item_table(ids)
        distinct, place = torch.unique(ids, return_inverse=True)
        return F.embedding(place, self._vectors(distinct))

    def _item_output(self, ids: Tensor | None) -> Tensor:
        if self.tower is None:
            return super()._item_output(ids)
        return self._all() if ids is None else self._item_input(ids)

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return states (B, L, D): MLP([mean of x up to t ; x_t]) + that mean; causal."""
        real = mask.unsqueeze(2).to(x.dtype)
        mean = (x * real).cumsum(1) / real.cumsum(1).clamp(min=1)
        both = torch.cat([mean, x * real], 2)
        state = self.user(dropout(both, self.p, self.training)) + mean
        return self._unit(state) / (self.temperature or 1.0)

    def _main_loss(self, states: Tensor, targets: Tensor, negative: Tensor | None) -> Tensor:
        if self.config["loss"] == "full":
            return super()._main_loss(states, targets, negative)
        # ``objective`` itself would ask the tower for the whole catalog.
        ids, log_weight = self.objective.drawn(targets)
        scores, same = self.score(states, ids), ids == targets[:, None]
        return sampled_softmax(scores[same], (scores + log_weight).masked_fill(same, -torch.inf))

    def folded(self) -> Any:
        """Return a copy without hooks and words whose tables hold what the item seams give."""
        ids = self._ids()
        inputs, outputs = self.item_input(ids), self.item_output()
        tied = torch.equal(inputs, outputs)
        copy = type(self)(
            **{**self.config, "words": [], "output_dim": 0 if tied else outputs.shape[1]}
        ).to(inputs.device)
        own = {k: v for k, v in self.state_dict().items() if k in copy.state_dict()}
        own["item_table.weight"] = inputs
        if not tied:
            own["output_table"] = outputs
        copy.load_state_dict(own)
        return copy
