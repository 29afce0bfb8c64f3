"""The loss of ranking distillation. Shapes: M positions, K teacher's items, N items, D width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.training import HISTORY, TRAIN
from ..models.histories import rows_of
from ..models.hooks_net import overrides
from ..models.losses_net import full_cross_entropy

if TYPE_CHECKING:
    import pyarrow as pa

    from ..data.training import TrainingData
    from .ranking_distillation import RankingDistillation

COLUMNS = ("user_id", "position", "rank", "item_id", "distance")
ABSENT = 1e-8  # weight of an item that the student itself would not show
SCORES = 1 << 22  # scores of the student that are compared at a time


@dataclass(frozen=True)
class RankingLists:
    """Rankings by row of the known log: row ``start[u] + p`` is user u after p items; row 0 none.

    Row numbers count from 1 over all known (training and history) rows, users in order.
    """

    start: np.ndarray  # int64[U + 2]
    item: np.ndarray  # int64[R + 1, K], best first, 0 = none
    distance: np.ndarray  # float32[R + 1, K]


def ranking_lists(table: pa.Table, data: TrainingData, k: int, name: str) -> RankingLists:
    """Join rankings to the log by user id and position, items by id.

    Rows of unknown users or items, of positions that are no training position, and of ranks below
    the first ``k`` known items are left out. Raises ValueError where columns are missing or nothing
    joins.
    """
    missing = set(COLUMNS) - set(table.column_names)
    if missing:
        raise ValueError(
            f"{name}: columns {table.column_names}, missing {sorted(missing)}; expected one row "
            "per (user_id, position, rank)"
        )
    known = rows_of(data, (TRAIN, HISTORY))
    user = data.users.index(table["user_id"].to_pylist())
    item = data.items.index(table["item_id"].to_pylist())
    position = table["position"].to_numpy().astype(np.int64)
    rank = table["rank"].to_numpy().astype(np.int64)
    distance = table["distance"].to_numpy().astype(np.float32)
    good = (user > 0) & (item > 0) & (position >= 1) & (position < known.counts[user])
    if not good.any():
        raise ValueError(
            f"{name}: none of its {len(user)} rows joins a training position and an item of the log"
        )
    row = known.start[user] + position
    order = np.lexsort((rank, row))
    order = order[good[order]]
    row = row[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    kept, place = order[place < k], place[place < k]
    size = len(known.item) + 1
    items, distances = np.zeros((size, k), np.int64), np.zeros((size, k), np.float32)
    at = known.start[user[kept]] + position[kept]
    items[at, place], distances[at, place] = item[kept], distance[kept]
    return RankingLists(known.start, items, distances)


def importance(distance: Tensor, real: Tensor, agreed: Tensor, how: RankingDistillation) -> Tensor:
    """Return (M, K): w of each of the teacher's items, summing to 1 over those that are real.

    distance (M, K) float; real, agreed (M, K) bool: it exists; the student would show it as well.
    """
    rank = torch.arange(1, distance.shape[1] + 1, device=distance.device, dtype=distance.dtype)
    by_position = _shares((-rank / how.beta).expand_as(distance), real)
    by_confidence = _shares(-distance, real)
    consistent = torch.where(agreed, 1.0, ABSENT).to(distance.dtype)
    total = (
        how.position * by_position + how.confidence * by_confidence + how.consistency * consistent
    ) * real
    return total / total.sum(1, keepdim=True).clamp(min=torch.finfo(total.dtype).tiny)


def _shares(logits: Tensor, real: Tensor) -> Tensor:
    return torch.softmax(logits.masked_fill(~real, -torch.inf), 1).nan_to_num(0.0)


def ranking_bce(
    positive: Tensor, negative: Tensor, weight: Tensor, *, shifted: bool = False
) -> Tensor:
    """Return (M,): ``sum_k w_k (-ln sigmoid(s_k) - ln sigmoid(-s_neg))``.

    positive (M, K), negative (M,), weight (M, K). ``shifted``: ``-ln sigmoid(1 - s_neg)`` instead.
    """
    below = F.softplus(negative - 1 if shifted else negative)
    return (weight * (F.softplus(-positive) + below[:, None])).sum(1)


class RankingHook(nn.Module):
    """Keeps the teacher's rankings and adds their loss."""

    def __init__(self, lists: RankingLists, how: RankingDistillation) -> None:
        super().__init__()
        self.how = how
        for name in ("start", "item", "distance"):
            value = torch.from_numpy(getattr(lists, name))
            self.register_buffer(name, value, persistent=False)

    def extra_loss(self, model: Any, batch: Any, states: Tensor) -> Tensor | float:
        """Return ``weight * mean L_RD`` over the positions of the batch that the teacher ranked."""
        if not self.how.weight:
            return 0.0
        if getattr(batch, "begin", None) is None:
            raise ValueError("ranking distillation needs batches that say where a window begins")
        real = batch.items > 0
        row = (self.start[batch.user] + batch.begin)[:, None] + real.cumsum(1)
        taught = real & (batch.targets > 0) & (self.item[row * real][..., 0] > 0)
        if not bool(taught.any()):
            return states.sum() * 0.0
        row, picked, target = row[taught], states[taught], batch.targets[taught]
        return self.how.weight * batch.counted(self._loss(model, picked, target, row))

    def _loss(self, model: Any, states: Tensor, target: Tensor, row: Tensor) -> Tensor:
        item, distance = self.item[row], self.distance[row]  # (M, K)
        real = item > 0
        outputs = model.item_output()  # (N + 1, D)
        full = model.score(states) if overrides(model, "score") else None
        scores = (states[:, None] * outputs[item]).sum(-1) if full is None else full.gather(1, item)
        agreed = self._agreed(states, outputs, full, scores)
        weight = importance(distance, real, agreed, self.how)
        if self.how.loss == "softmax":
            return self._softmax(states, outputs, full, item, scores, weight)
        other = torch.randint(1, len(outputs), (len(states),), device=states.device)
        negative = (
            (states * outputs[other]).sum(-1) if full is None
            else full.gather(1, other[:, None])[:, 0]
        )  # fmt: skip
        use = (other != target) & (item != other[:, None]).all(1)
        shifted = self.how.loss == "bce_shifted"
        with_negative = ranking_bce(scores, negative, weight, shifted=shifted)
        without = (weight * F.softplus(-scores)).sum(1)
        return torch.where(use, with_negative, without).mean()

    @torch.no_grad()
    def _agreed(
        self, states: Tensor, outputs: Tensor, full: Tensor | None, scores: Tensor
    ) -> Tensor:
        """Return (M, K): fewer than K items of the catalog score above the teacher's item."""
        step = max(1, SCORES // len(outputs))
        out = []
        for at in range(0, len(states), step):
            part = slice(at, at + step)
            every = states[part] @ outputs.T if full is None else full[part].clone()
            every[:, 0] = -torch.inf
            least = every.topk(min(self.how.k, every.shape[1] - 1), 1).values[:, -1:]
            # the same product in another order of summation may differ in its last digits
            out.append(scores[part] >= least - 1e-5 * least.abs())
        return torch.cat(out)

    @staticmethod
    def _softmax(
        states: Tensor, outputs: Tensor, full: Tensor | None, item: Tensor, scores: Tensor,
        weight: Tensor,
    ) -> Tensor:  # fmt: skip
        """Return the mean of ``sum_k w_k (-s_k + logsumexp s)``."""
        first = item[:, 0]
        if full is None:
            main = full_cross_entropy(states, outputs, first)
        else:
            no = torch.full_like(full[:, :1], -torch.inf)
            main = F.cross_entropy(torch.cat([no, full[:, 1:]], 1), first)
        return main + (scores[:, 0] - (weight * scores).sum(1)).mean()

    def fold(self, model: Any) -> None:
        """Distillation ends with training."""
