"""The fusion at work. Shapes: B users, L positions, N items, U users, E text width, D width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.cuts import cut_of
from ..data.training import HISTORY, TRAIN

if TYPE_CHECKING:
    from ..data.training import TrainingData

START = 0.1  # of the texts' half of g_f


def cutoffs(data: TrainingData, share: float) -> Tensor:
    """Return int64 (U + 1,): known rows of each user that a text may have read."""
    known = np.isin(data.split, (TRAIN, HISTORY))
    rows = np.bincount(data.user[known], minlength=data.n_users + 1)
    return torch.tensor([cut_of(int(n), share) for n in rows])


class FusionHook(nn.Module):
    """``item_output`` and ``user_state`` through shared maps of frozen texts."""

    def __init__(
        self, items: Tensor, with_item: Tensor, users: Tensor, with_user: Tensor, width: int,
        mode: str, weight: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mode, self.weight = mode, weight
        for name, value in (("items", items), ("with_item", with_item), ("users", users),
                            ("with_user", with_user)):  # fmt: skip
            self.register_buffer(name, value, persistent=False)  # frozen, not stored
        self.register_buffer("cut", torch.zeros(len(users), dtype=torch.long), persistent=False)
        self.text = nn.Linear(items.shape[1], width)  # g_l, or g_t where no id is read
        self.absent = nn.Parameter(torch.zeros(width))  # in place of g_l(t) where there is no text
        self.fuse = nn.Linear(2 * width, width) if mode == "id" else None
        if self.fuse is not None:
            with torch.no_grad():
                self.fuse.weight[:, :width] *= START
                self.fuse.weight[:, width:].copy_(torch.eye(width))
                self.fuse.bias.zero_()

    def told(self, vectors: Tensor, real: Tensor) -> Tensor:
        """Return (..., D): ``g_l`` of the texts (..., E), the learned vector where none is."""
        return torch.where(real[..., None], self.text(vectors), self.absent)

    def joined(self, told: Tensor, own: Tensor | None) -> Tensor:
        if self.fuse is None:
            return told
        assert own is not None
        return self.fuse(torch.cat([told, own], -1))

    def item_output(self, model: Any, nxt: Any, ids: Tensor | None) -> Tensor:
        if not self.weight:
            return nxt(ids)
        vectors, real = self.items, self.with_item
        if ids is not None:
            vectors, real = vectors[ids], real[ids]
        out = self.joined(self.told(vectors, real), None if self.fuse is None else nxt(ids))
        here = torch.arange(len(out), device=out.device) > 0 if ids is None else ids > 0
        return out * here[..., None]

    def user_state(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        if not self.weight:
            return nxt(batch)
        own = nxt(batch)
        real = self.with_user[batch.user]
        if batch.targets is None:
            told = self.told(self.users[batch.user], real)
        else:
            told = self.told(self.users[batch.user][:, None], real[:, None] & self.visible(batch))
        return self.joined(told, own)

    def visible(self, batch: Any) -> Tensor:
        """Return bool (B, L): the target lies behind what the user's text was written from."""
        real = batch.items > 0
        first = (~real).sum(1, keepdim=True)  # of the left padding
        column = torch.arange(real.shape[1], device=real.device)
        target = batch.begin[:, None] + column - first + 1  # place among the known rows, from 0
        return target >= self.cut[batch.user][:, None]

    def fold(self, model: Any) -> ServedFusion | None:
        """Return the users' half as a table; items' outputs are in the model's."""
        if not self.weight:
            return None
        width = self.absent.shape[0]
        told = self.told(self.users, self.with_user)
        told[0] = self.absent
        served = ServedFusion(n_users=len(told) - 1, dim=width, ids=self.fuse is not None)
        served.to(told.device)
        if self.fuse is None:
            served.users.copy_(told)
        else:
            served.users.copy_(told @ self.fuse.weight[:, :width].T + self.fuse.bias)
            served.own.copy_(self.fuse.weight[:, width:])
        return served


class ServedFusion(nn.Module):
    """``s_u = table[u] + W h_u``; without ids the table alone. User 0 is any unknown user."""

    def __init__(self, *, n_users: int, dim: int, ids: bool) -> None:
        super().__init__()
        self.config = {"n_users": n_users, "dim": dim, "ids": ids}
        self.register_buffer("users", torch.zeros(n_users + 1, dim))
        self.register_buffer("own", torch.zeros(dim, dim) if ids else None)

    def user_state(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        told = self.users[batch.user]
        return told if self.own is None else told + nxt(batch) @ self.own.T
