"""The towers that find users for cold items (ColdLLM, WSDM 2025, arXiv:2402.09176).

Shapes: B pairs, E text width, C width of the known vectors, D width of a tower.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .descent_net import descend


def soft_bce(margin: Tensor, target: Tensor) -> Tensor:
    """Return ``-t log sigmoid(m) - (1 - t) log sigmoid(-m)``; ln 2 at m = 0 whatever t is."""
    return F.softplus(margin) - target * margin


def margin_distillation(
    user: Tensor, positive: Tensor, negative: Tensor, teacher: tuple[Tensor, Tensor, Tensor],
    weight: Tensor, *, a: float, b: float, c: float, squared: bool = False,
) -> Tensor:  # fmt: skip
    """Return the student's loss over B triples, weighted by ``weight`` (B,).

    ds = u'(g_i - g_j) and dt = e_u'(e_i - e_j):
    ``BCE(ds, 1) + a BCE(ds, sigmoid(dt)) + b BCE(g_i'g_i - mean_j g_i'g_j,
    sigmoid(e_i'e_i - mean_j e_i'e_j)) + c |p_t - p_s|``, where p are the sigmoids of the positive's
    scores (the printed form squares the gap: ``squared``). All vectors (B, D); the teacher's
    (B, C).
    """
    known, warm, other = teacher
    margin = (user * (positive - negative)).sum(1)
    told = (known * (warm - other)).sum(1)
    own = positive.square().sum(1) - (positive @ negative.T).mean(1)
    own_told = warm.square().sum(1) - (warm @ other.T).mean(1)
    gap = torch.sigmoid((known * warm).sum(1)) - torch.sigmoid((user * positive).sum(1))
    loss = soft_bce(margin, torch.ones_like(margin)) + a * soft_bce(margin, torch.sigmoid(told))
    loss = loss + b * soft_bce(own, torch.sigmoid(own_told))
    loss = loss + c * (gap.square() if squared else gap.abs())
    return (weight * loss).mean()


class TextTowers(nn.Module):
    """An MLP E -> hidden -> D for users and one for items, over text vectors."""

    def __init__(self, user: int, item: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.user = nn.Sequential(nn.Linear(user, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.item = nn.Sequential(nn.Linear(item, hidden), nn.ReLU(), nn.Linear(hidden, dim))


def _tanh_layers(width: int, hidden: int, dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.Tanh(), nn.Linear(hidden, dim)
    )


class KnownTowers(nn.Module):
    """f_U: C -> C over known user vectors, f_I: E -> C over item texts; tanh and batch norm."""

    def __init__(self, known: int, item: int, hidden: int) -> None:
        super().__init__()
        self.user = _tanh_layers(known, hidden, known)
        self.item = _tanh_layers(item, hidden, known)


def unmet(
    users: np.ndarray, items: np.ndarray, met: np.ndarray, width: int, rng: np.random.Generator
) -> np.ndarray:
    """Return one of ``items`` per user that the user did not meet, drawn again at most 20 times.

    ``met`` are the sorted, distinct ``user * width + item`` of all pairs; width > every item.
    """
    out = rng.choice(items, len(users))
    for _ in range(20):
        keys = users * width + out
        at = np.minimum(np.searchsorted(met, keys), len(met) - 1)
        again = np.flatnonzero(met[at] == keys)
        if not len(again):
            break
        out[again] = rng.choice(items, len(again))
    return out


def fit_towers(how: Any, pairs: np.ndarray, text: tuple[np.ndarray, np.ndarray],
               known: tuple[np.ndarray, np.ndarray], warm: np.ndarray,
               counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:  # fmt: skip
    """Return user vectors (U + 1, D + C), item vectors (N + 1, D + C) and facts.

    ``pairs`` int64[P, 2] are warm (user, item) pairs; ``text`` and ``known`` the vectors of users
    and of items by position; ``warm`` the items that negatives are drawn from; ``counts`` training
    rows by item, int64[N + 1]. ``how`` is a ``FilteredUsers``.
    """
    users, items = (torch.from_numpy(a) for a in text)
    e_users, e_items = (torch.from_numpy(a) for a in known)
    user, item = torch.from_numpy(pairs[:, 0]), torch.from_numpy(pairs[:, 1])
    met = np.unique(pairs[:, 0] * len(counts) + pairs[:, 1])
    usual = how.typical or float(counts[warm].mean())
    share = torch.tanh(torch.from_numpy(counts) / usual).clamp(min=how.least_weight).float()

    def drawn(rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(unmet(pairs[rows, 0], warm, met, len(counts), rng))

    with torch.random.fork_rng():
        torch.manual_seed(how.seed)
        towers = TextTowers(users.shape[1], items.shape[1], how.hidden, how.dim)
        student = KnownTowers(e_users.shape[1], items.shape[1], how.hidden)

        def text_loss(rows: np.ndarray, rng: np.random.Generator) -> Tensor:
            u = towers.user(users[user[rows]])
            good = (u * towers.item(items[item[rows]])).sum(1)
            bad = (u * towers.item(items[drawn(rows, rng)])).sum(1)
            return F.softplus(-good).mean() + F.softplus(bad).mean()

        def known_loss(rows: np.ndarray, rng: np.random.Generator) -> Tensor:
            j = drawn(rows, rng)
            both = student.item(items[torch.cat([item[rows], j])])
            g_i, g_j = both.tensor_split(2)
            e_u = e_users[user[rows]]
            teacher = (e_u, e_items[item[rows]], e_items[j])
            return margin_distillation(student.user(e_u), g_i, g_j, teacher, share[item[rows]],
                                       a=how.a, b=how.b, c=how.c, squared=how.squared)  # fmt: skip

        size = {"size": len(pairs), "batch": how.batch, "seed": how.seed}
        first = descend(towers, text_loss, lr=how.lr, epochs=how.epochs, **size)
        second = descend(student, known_loss, lr=how.lr, epochs=how.epochs, **size)
        with torch.no_grad():
            left = torch.cat([towers.user(users), student.user(e_users)], 1)
            right = torch.cat([towers.item(items), student.item(items)], 1)
    facts = {"text_loss": first[-1], "known_loss": second[-1], "first_text_loss": first[0],
             "first_known_loss": second[0]}  # fmt: skip
    return left.numpy(), right.numpy(), facts
