"""Pieces that CTR networks share: field embeddings, towers, extra dense columns (torch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout_net import dropout
from .gather_net import rows
from .met import forget, met_values


class EntityFields(nn.Module):
    """The field vectors of users or items: the id (optional) and each categorical field.

    ``shape`` maps a field to [vocabulary size, M]. A field with several values per entity is the
    mean of its values' vectors; a missing value has a learned vector of its own. The id vector of
    position 0 (padding, unknown) is zero, and so are those of ids and values that training does not
    meet. ``fill`` sets the codes.
    """

    def __init__(
        self, n: int, shape: Mapping[str, Sequence[int]], dim: int, ids: bool, std: float
    ) -> None:
        super().__init__()
        self.n, self.n_fields = n, len(shape) + int(ids)
        self.dim = dim
        self.table: nn.Embedding | None = None
        if ids:
            self.table = nn.Embedding(n + 1, dim, padding_idx=0)
            nn.init.normal_(self.table.weight, std=std)
            with torch.no_grad():
                self.table.weight[0] = 0
        self.values: nn.Embedding | None = None
        if shape:
            self.values = nn.Embedding(sum(size + 1 for size, _ in shape.values()), dim)
            nn.init.normal_(self.values.weight, std=std)
            slots = sum(m for _, m in shape.values())
            self.register_buffer("codes", torch.zeros(n + 1, slots, dtype=torch.long))
            self.register_buffer("weights", torch.zeros(n + 1, slots))
            pool = [f for f, (_, m) in enumerate(shape.values()) for _ in range(m)]
            self.register_buffer("pool", F.one_hot(torch.tensor(pool)).float(), persistent=False)

    def fill(
        self, codes: Mapping[str, np.ndarray], shape: Mapping[str, Sequence[int]], met: np.ndarray
    ) -> None:
        """Take the codes int64[n + 1, M] of each field; forget what is not ``met``."""
        if self.table is not None:
            forget(self.table.weight, met)
        if self.values is not None:
            forget(self.values.weight, met_values(codes, shape, met))
        offset, start = 0, 0
        for name, (size, m) in shape.items():
            array = codes[name]
            weight = (array > 0).astype(np.float32)
            weight[:, 0] = np.where(weight.any(axis=1), weight[:, 0], 1.0)  # none: code 0
            weight /= weight.sum(axis=1, keepdims=True)
            self.codes[:, start : start + m] = torch.from_numpy(array + offset)
            self.weights[:, start : start + m] = torch.from_numpy(weight)
            offset, start = offset + size + 1, start + m

    def forward(self, ids: Tensor) -> Tensor:
        """Return (n, fields, dim) of the positions ``ids`` (n,)."""
        parts = [] if self.table is None else [rows(self.table.weight, ids, 0).unsqueeze(1)]
        if self.values is not None:
            codes = self.codes.index_select(0, ids)
            e = rows(self.values.weight, codes)  # (n, slots, dim)
            if self.pool.shape[0] > self.pool.shape[1]:
                weighted = e * self.weights[ids].unsqueeze(2)
                e = (weighted.mT @ self.pool).mT  # (n, fields, dim)
            parts.append(e)
        if not parts:
            return torch.zeros(len(ids), 0, self.dim, device=ids.device)
        return torch.cat(parts, 1)


class Distinct:
    """The distinct positions of a batch: vectors are computed once per entity, then looked up."""

    def __init__(self, n: int, *ids: Tensor) -> None:
        seen = torch.zeros(n, dtype=torch.bool, device=ids[0].device)
        for part in ids:
            seen[part.reshape(-1)] = True
        self.ids = seen.nonzero().squeeze(1)  # (n_distinct,)
        self._place = torch.zeros(n, dtype=torch.long, device=seen.device)
        self._place[self.ids] = torch.arange(len(self.ids), device=seen.device)

    def place(self, ids: Tensor) -> Tensor:
        """Return where in ``self.ids`` each of ``ids`` stands."""
        return self._place.index_select(0, ids.reshape(-1)).view(ids.shape)


def per_entity(fields: EntityFields, ids: Tensor, grouped: bool) -> Tensor:
    """Return ``fields(ids)`` (B, fields, dim); with ``grouped`` each distinct entity once."""
    if not grouped or not fields.n_fields:
        return fields(ids)
    distinct = Distinct(fields.n + 1, ids)
    vectors = fields(distinct.ids)
    return rows(vectors.flatten(1), distinct.place(ids)).unflatten(1, vectors.shape[1:])


class Dice(nn.Module):
    """``p x + (1 - p) a x``, ``p = sigmoid(batchnorm(x))`` (Deep Interest Network, section 5.3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.a = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:  # one row has no variance: use what was seen so far
            z = F.batch_norm(x, self.norm.running_mean, self.norm.running_var, eps=self.norm.eps)
        else:
            z = self.norm(x)
        p = torch.sigmoid(z)
        return x * (self.a + p * (1 - self.a))


def activation(name: str, width: int) -> nn.Module:
    """Return a new activation layer for ``width`` units."""
    match name:
        case "dice":
            return Dice(width)
        case "prelu":
            return nn.PReLU(width)
        case "relu":
            return nn.ReLU()
    raise ValueError(f"unknown activation {name!r}: use 'dice', 'prelu' or 'relu'")


class Dropout(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)


class Tower(nn.Module):
    """An MLP to one logit whose first layer takes further summands.

    ``first(x) + weights(c)`` is one layer over the concatenation ``[x; c]``. ``p`` is the dropout.
    """

    def __init__(self, width: int, layers: Sequence[int], act: str, p: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, layers[0])
        rest: list[nn.Module] = [activation(act, layers[0]), Dropout(p)]
        for a, b in pairwise(layers):
            rest += [nn.Linear(a, b), activation(act, b), Dropout(p)]
        self.rest = nn.Sequential(*rest, nn.Linear(layers[-1], 1))

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Return logits (B,) of ``x`` (B, width); ``added`` (B, layers[0]) is a summand of h."""
        return self.above(self.first(x), added)

    def above(self, h: Tensor, added: Tensor | None = None) -> Tensor:
        """Return logits (B,) of what the first layer gave, (B, layers[0])."""
        return self.rest[-1](self._last(h, added)).squeeze(1)

    def hidden(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Return (B, layers[-1]): what the last layer makes its logit of."""
        return self._last(self.first(x), added)

    def _last(self, h: Tensor, added: Tensor | None) -> Tensor:
        if added is not None:
            h = h + added
        for number in range(len(self.rest) - 1):
            h = self.rest[number](h)
        return h


class ColumnWeights(nn.Module):
    """Weights of one extra dense column (B, m): into the tower and, optionally, first order."""

    def __init__(self, width: int, tower: Tower, first_order: bool) -> None:
        super().__init__()
        hidden, inputs = tower.first.weight.shape
        self.deep = nn.Linear(width, hidden, bias=False)
        bound = (inputs + width) ** -0.5  # as if the columns had always been concatenated
        nn.init.uniform_(self.deep.weight, -bound, bound)
        self.linear = nn.Linear(width, 1, bias=False) if first_order else None
        if self.linear is not None:
            nn.init.zeros_(self.linear.weight)


class ExtraColumns(nn.Module):
    """The weights of all extra columns of a model, in the order in which they were added.

    They are apart from the base layer, so that the base starts from the same numbers with and
    without columns, and columns that are zero change nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()

    @property
    def widths(self) -> list[int]:
        return [block.deep.in_features for block in self.blocks]

    def add(self, width: int, tower: Tower, first_order: bool) -> None:
        self.blocks.append(ColumnWeights(width, tower, first_order).to(tower.first.weight.device))

    def forward(self, columns: list[Tensor]) -> tuple[Tensor | None, Tensor | float]:
        """Return what ``columns`` [(B, m), ...] add to the first layer and to the logit."""
        if [c.shape[1] for c in columns] != self.widths:
            raise ValueError(
                f"extra columns of widths {[c.shape[1] for c in columns]}, but weights for "
                f"{self.widths}; a hook calls model.add_columns(width) once per column it returns"
            )
        deep: Tensor | None = None
        logit: Tensor | float = 0.0
        for block, column in zip(self.blocks, columns, strict=True):
            part = block.deep(column)
            deep = part if deep is None else deep + part
            if block.linear is not None:
                logit = logit + block.linear(column).squeeze(1)
        return deep, logit
