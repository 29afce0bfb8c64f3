"""Contrastive losses between two views of the same rows, or of states and their targets.

Shapes: B rows, M negatives, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(x: Tensor, y: Tensor, tau: float | Tensor, *, cosine: bool = True) -> Tensor:
    """Return the mean over both directions of ``-log exp(cos(x_a, y_a) / tau) / sum_b ...``.

    Rows are normalized; the others of the batch are the negatives (SimCLR's NT-Xent over pairs).
    Without ``cosine`` the scores are dot products of the rows as they are.
    """
    one, two = (F.normalize(x, dim=1), F.normalize(y, dim=1)) if cosine else (x, y)
    scores = one @ two.T / tau
    own = F.log_softmax(scores, 1).diagonal() + F.log_softmax(scores, 0).diagonal()
    return -own.mean() / 2


def soft_target(x: Tensor, y: Tensor, tau: float | Tensor) -> Tensor:
    """Return the soft-target contrast of LLMEmb's released code; rows are not normalized.

    Scores are ``x y^T / tau``; the target of a row is ``softmax(tau (x x^T + y y^T) / 2)``, so rows
    that resemble each other within a view may be confused between views. Cross-entropy over rows
    and over columns, averaged. It is not zero where x equals y.
    """
    scores = x @ y.T / tau
    aims = F.softmax((x @ x.T + y @ y.T) / 2 * tau, 1)
    rows = -(aims * F.log_softmax(scores, 1)).sum(1)
    columns = -(aims.T * F.log_softmax(scores.T, 1)).sum(1)
    return (rows + columns).mean() / 2


def sampled_info_nce(
    states: Tensor, targets: Tensor, negatives: Tensor, scale: float | Tensor, *,
    same: float = 1.0, left_out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the mean of ``-log e^(s cos(h, v)) / (e^(s cos(h, v)) + sum_j e^(s cos(h, n_j)))``.

    h and v are rows of ``states`` and ``targets`` (B, D), n of ``negatives`` (M, D), s ``scale``.
    Where ``cos(v, n_j) > same``, n_j is the same thing by another name and is left out of that
    row's sum, as is where ``left_out`` (bool (B, M)) says so. Without negatives a row's loss is 0.
    """
    states, targets, negatives = (F.normalize(x, dim=1) for x in (states, targets, negatives))
    alike = targets.detach() @ negatives.detach().T > same
    alike = alike if left_out is None else alike | left_out
    others = (states @ negatives.T * scale).masked_fill(alike, -torch.inf)
    own = (states * targets).sum(1, keepdim=True) * scale
    return -F.log_softmax(torch.cat([own, others], 1), 1)[:, 0].mean()
