"""Contrastive losses between two views of the same rows. Shapes: B rows, D width."""

from __future__ import annotations

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
