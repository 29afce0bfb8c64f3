"""The hybrid-expert adaptor and its folded form (torch)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..models.ctr_net import Distinct

if TYPE_CHECKING:
    from ..data.training import IdMap
    from ..data.vectors import VectorTable
    from ..models.batches import CtrBatch

FOLD_ROWS = 1024  # entities adapted together when folding


def side_vectors(
    vectors: VectorTable, ids: IdMap, side: str, name: str, standardize: bool
) -> tuple[Tensor, Tensor]:
    """Return (float32 (n + 1, E), bool (n + 1,)) by position; rows without knowledge are zero.

    Raises ValueError where the vectors are of the other entity, cover no id of the log or are not
    finite.
    """
    if vectors.entity != side:
        raise ValueError(f"{name}: vectors of {vectors.entity}s, expected vectors of {side}s")
    if why := vectors.untold(ids):
        raise ValueError(f"{name}: {why}")
    rows, mask = vectors.aligned(ids)
    known = rows[mask]
    finite = (known == known) & (abs(known) < float("inf"))
    if not finite.all():
        position = mask.nonzero()[0][(~finite).any(axis=1).argmax()]
        raise ValueError(f"{name}: the vector of {side} {ids.ids[position - 1]!r} is not finite")
    if standardize:
        known = known - known.mean(axis=0)
        known = known / max(float((known**2).mean()) ** 0.5, 1e-12)
    rows[:] = 0
    rows[mask] = known
    return torch.from_numpy(rows), torch.from_numpy(mask)


class Experts(nn.Module):
    """``count`` MLPs E -> hidden -> out with ReLU after every layer, run together."""

    def __init__(self, count: int, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.count = count
        self.first = nn.Linear(width, count * hidden)
        bound = hidden**-0.5  # as nn.Linear(hidden, out)
        self.weight = nn.Parameter(torch.empty(count, hidden, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, count, out) of ``x`` (n, E)."""
        h = torch.relu(self.first(x)).unflatten(1, (self.count, -1)).transpose(0, 1)
        return torch.relu(torch.baddbmm(self.bias, h, self.weight)).transpose(0, 1)


def mix(gate_logits: Tensor, outputs: Tensor) -> Tensor:
    """Return (n, m): the experts' ``outputs`` (n, K, m) weighted by softmax of the gates (n, K)."""
    return torch.bmm(torch.softmax(gate_logits, 1).unsqueeze(1), outputs).squeeze(1)


class Adaptor(nn.Module):
    """The trained part of KAR: shared experts, and experts and a gate for each side."""

    def __init__(
        self, widths: Mapping[str, int], shared: int, specific: int, hidden: int, out: int
    ) -> None:
        super().__init__()
        width = next(iter(widths.values()))
        if len(set(widths.values())) > 1:
            raise ValueError(
                f"text vectors of different widths, {dict(widths)}: shared experts read both; "
                "encode users and items with one encoder, or reduce them to one width"
            )
        self.shared = Experts(shared, width, hidden, out) if shared else None
        self.specific = nn.ModuleDict(
            {side: Experts(specific, width, hidden, out) for side in widths if specific}
        )
        self.gate = nn.ModuleDict({side: nn.Linear(width, shared + specific) for side in widths})

    def forward(self, side: str, x: Tensor) -> Tensor:
        """Return r^ (n, out) of text vectors ``x`` (n, E) of one side."""
        outputs = [] if self.shared is None else [self.shared(x)]
        if side in self.specific:
            outputs.append(self.specific[side](x))
        return mix(self.gate[side](x), torch.cat(outputs, 1))


def _columns(
    batch: CtrBatch, sizes: Mapping[str, int], rows: Callable[[str, Tensor], Tensor]
) -> list[Tensor]:
    """Return a column block per side; ``rows(side, ids)`` runs once per distinct entity."""
    columns = []
    for side, n in sizes.items():
        ids = batch.user if side == "user" else batch.item
        distinct = Distinct(n, ids)
        columns.append(rows(side, distinct.ids)[distinct.place(ids)])
    return columns


class HybridExpertsHook(nn.Module):
    """Columns (B, out + 1) per side from frozen text vectors; the last one says "has knowledge"."""

    def __init__(
        self,
        tables: Mapping[str, tuple[Tensor, Tensor]],
        shared: int,
        specific: int,
        hidden: int,
        out: int,
        gate: float,
    ) -> None:
        super().__init__()
        self.gate = gate
        widths = {side: vectors.shape[1] for side, (vectors, _) in tables.items()}
        self.sizes = {side: len(mask) for side, (_, mask) in tables.items()}
        self.adaptor = Adaptor(widths, shared, specific, hidden, out)
        self.default = nn.ParameterDict({s: nn.Parameter(torch.zeros(out)) for s in tables})
        for side, (vectors, mask) in tables.items():  # frozen: neither trained nor stored
            self.register_buffer(f"{side}_vectors", vectors, persistent=False)
            self.register_buffer(f"{side}_mask", mask, persistent=False)

    def rows(self, side: str, ids: Tensor) -> Tensor:
        """Return (n, out + 1) of the positions ``ids``."""
        mask = getattr(self, f"{side}_mask")[ids].unsqueeze(1)
        adapted = self.adaptor(side, getattr(self, f"{side}_vectors")[ids])
        vectors = torch.where(mask, adapted, self.default[side])
        return self.gate * torch.cat([vectors, mask.to(vectors.dtype)], 1)

    def feature_columns(self, model: Any, nxt: Any, batch: CtrBatch) -> list[Tensor]:
        return [*nxt(batch), *_columns(batch, self.sizes, self.rows)]

    def fold(self, model: Any) -> FoldedColumns:
        """Return the same columns as plain tables by id."""
        with torch.no_grad():
            tables = {}
            for side, n in self.sizes.items():
                ids = torch.arange(n, device=getattr(self, f"{side}_mask").device)
                tables[side] = torch.cat([self.rows(side, i) for i in ids.split(FOLD_ROWS)])
        folded = FoldedColumns({side: list(t.shape) for side, t in tables.items()})
        for side, table in tables.items():
            getattr(folded, side).copy_(table)
        return folded.to(next(self.parameters()).device)


class FoldedColumns(nn.Module):
    """Extra columns looked up by id; ``shapes`` maps "user" and "item" to (rows, width)."""

    def __init__(self, shapes: Mapping[str, list[int]]) -> None:
        super().__init__()
        self.config = {"shapes": {side: list(shape) for side, shape in shapes.items()}}
        for side, shape in shapes.items():
            self.register_buffer(side, torch.zeros(*shape))

    def feature_columns(self, model: Any, nxt: Any, batch: CtrBatch) -> list[Tensor]:
        ids = {"user": batch.user, "item": batch.item}
        return [*nxt(batch), *(getattr(self, s)[ids[s]] for s in self.config["shapes"])]
