"""The served form of parts that add views of users and items: tables, and histories of strangers.

Shapes: B batch, U users, N items, W width of a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..models.factor_net import history_sum

How = Literal["concat", "sum", "mean"]
HOWS = ("concat", "sum", "mean")


def joined(how: str, own: Tensor | None, views: Sequence[Tensor]) -> Tensor:
    """Return the backbone's vectors (..., D), None where they do not count, and views (..., W) as
    one: side by side, or their sum or mean."""
    parts = [*([] if own is None else [own]), *views]
    if how == "concat":
        return torch.cat(parts, -1)
    total = sum(parts[1:], parts[0])
    return total if how == "sum" else total / len(parts)


def of_users(batch: Any, users: Tensor, by_item: Tensor) -> Tensor:
    """Return (B, W): the row of a known user in ``users`` (U + 1, W); of an unknown one, whose row
    is zero, what the items of the history add, ``sum_i by_item_i / sqrt |H|``."""
    known = users[batch.user]
    items = getattr(batch, "items", None)
    if items is None:
        return known
    total, count = history_sum(items, by_item)
    return torch.where(known.any(1, keepdim=True), known, total / count.sqrt())


class ServedUserViews(nn.Module):
    """User states joined with one table of users; item outputs are in the model's own table.

    ``how`` "concat" puts them side by side; "add" gives ``own * state + table``.
    """

    def __init__(self, n_users: int, n_items: int, width: int, how: str, own: float) -> None:
        super().__init__()
        self.config = {"n_users": n_users, "n_items": n_items, "width": width, "how": how,
                       "own": own}  # fmt: skip
        self.how, self.own = how, own
        self.register_buffer("users", torch.zeros(n_users + 1, width))
        self.register_buffer("by_item", torch.zeros(n_items + 1, width))

    def user_state(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        views = of_users(batch, self.users, self.by_item)
        if self.how == "add":
            return self.own * nxt(batch) + views
        return torch.cat([nxt(batch), views], -1) if self.own else views


def served_views(
    how: str, own: bool, users: Sequence[Tensor], by_item: Sequence[Tensor]
) -> ServedUserViews:
    """Return the served form of views (U + 1, W) and (N + 1, W) that ``joined`` joined."""
    share = 1 / (len(users) + own) if how == "mean" else 1.0
    if how == "concat":
        tables = torch.cat(list(users), 1), torch.cat(list(by_item), 1)
    else:
        tables = torch.stack(list(users)).sum(0) * share, torch.stack(list(by_item)).sum(0) * share
    served = ServedUserViews(
        len(tables[0]) - 1, len(tables[1]) - 1, tables[0].shape[1],
        "concat" if how == "concat" else "add", share * own,
    )  # fmt: skip
    served.users.copy_(tables[0].detach().to(served.users.device))
    served.by_item.copy_(tables[1].detach().to(served.by_item.device))
    return served.to(tables[0].device)
