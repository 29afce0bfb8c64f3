"""The loss of augmented pairs. Shapes: B batch, A added pairs, D width, U users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.training import TRAIN
from ..models.losses_net import kept_places, pruned

if TYPE_CHECKING:
    import pyarrow as pa

    from ..data.training import TrainingData


def pairs_by_user(
    table: pa.Table, data: TrainingData, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (start int64[U + 2], liked int64[P], disliked int64[P]) by position, by user.

    Raises ValueError where columns are missing, the two lists of a row differ in length, or no
    pair can be used.
    """
    missing = sorted({"user_id", "liked", "disliked"} - set(table.column_names))
    if missing:
        raise ValueError(
            f"{name}: columns {table.column_names}, missing {missing}; expected one row per user "
            "with the lists liked and disliked"
        )
    owners, better, worse = [], [], []
    for user, liked, disliked in zip(
        *(table[c].to_pylist() for c in ("user_id", "liked", "disliked")), strict=True
    ):
        if len(liked or ()) != len(disliked or ()):
            raise ValueError(
                f"{name}, user_id {user!r}: {len(liked or ())} liked and {len(disliked or ())} "
                "disliked; the k-th of both make a pair, so give both lists the same length"
            )
        owners += [user] * len(liked or ())
        better += liked or ()
        worse += disliked or ()
    user, liked, disliked = data.users.index(owners), *map(data.items.index, (better, worse))
    width = data.n_items + 1
    rows = data.split == TRAIN
    met = np.isin(user * width + liked, data.user[rows] * width + data.item[rows])
    good = (user > 0) & (liked > 0) & (disliked > 0) & (liked != disliked) & ~met
    if not good.any():
        raise ValueError(
            f"{name}: none of its {len(owners)} pairs can be used: a pair needs a user and two "
            "different items of the log, the liked one not in the user's training rows"
        )
    order = np.flatnonzero(good)
    order = order[np.argsort(user[order], kind="stable")]
    start = np.searchsorted(user[order], np.arange(data.n_users + 2))
    return start, liked[order], disliked[order]


class AugmentedPairsHook(nn.Module):
    """Draws pairs of a batch's users and adds their losses to those of the batch."""

    def __init__(
        self, start: np.ndarray, liked: np.ndarray, disliked: np.ndarray, share: float,
        drop: float, keep: str, weight: float,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, array in (("start", start), ("liked", liked), ("disliked", disliked)):
            self.register_buffer(name, torch.from_numpy(array), persistent=False)
        self.share, self.drop, self.keep, self.weight = share, drop, keep, weight

    def drawn(self, users: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (place in ``users``, liked, disliked), each (A,), A <= floor(share B).

        floor(share B) rows are drawn without replacement; those of users without a pair are left
        out, a user with several gives one of them.
        """
        device = users.device
        place = torch.randperm(len(users))[: int(self.share * len(users))].to(device)
        user = users[place]
        count = self.start[user + 1] - self.start[user]
        place, user, count = place[count > 0], user[count > 0], count[count > 0]
        pick = (torch.rand(len(user)).to(device) * count).long().clamp(max=count - 1)
        at = self.start[user] + pick
        return place, self.liked[at], self.disliked[at]

    def pair_loss(self, model: Any, nxt: Any, batch: Any, states: Tensor) -> Tensor:
        """Return the mean over what stays of the batch's losses and the weighted added ones."""
        if not (self.share and self.weight) and not self.drop:
            return nxt(batch, states)
        with self.stream():
            place, liked, disliked = self.drawn(batch.user)
        added = F.softplus(-model.margins(states[place], liked, disliked))
        if not self.drop:
            rows, n = nxt(batch, states) * len(states), len(states)
            return (rows + self.weight * added.sum()) / (n + len(added))
        rows = model.pair_losses(batch, states)
        if model.objective == "bpr":
            return self._jointly(rows, added)
        left = pruned(rows, self.drop, self.keep), pruned(added, self.drop, self.keep)
        total = left[0].sum() + self.weight * left[1].sum()
        return total / (len(left[0]) + len(left[1]))

    def _jointly(self, rows: Tensor, added: Tensor) -> Tensor:
        every = torch.cat([rows, added])
        weight = torch.cat([torch.ones_like(rows), torch.full_like(added, self.weight)])
        stay = kept_places(every, self.drop, self.keep)
        return (weight * every)[stay].sum() / len(stay)

    def fold(self, model: Any) -> None:
        """Augmented pairs end with training."""
