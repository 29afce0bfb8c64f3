"""Implicit ALS in the form of iALS (Hu et al., ICDM 2008; Rendle et al., RecSys 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class ALS(Backbone):
    """Least squares for all pairs, alternating between users and items in closed form.

    ``sum_{(u,i) seen} (1 - <x_u, y_i>)^2 + alpha sum_{all} <x_u, y_i>^2 + sum_u l_u |x_u|^2 + sum_i
    l_i |y_i|^2`` with ``l_u = l2 (n_u + alpha N)^power`` and alike for items (arXiv:2110.14037,
    eqs. 1 to 5; ``power=0`` is a plain L2). Each half step solves ``(sum_{i seen} y_i y_i^T + alpha
    Y^T Y + l_u I) x_u = sum_{i seen} y_i`` for blocks of users at once.

    A user is scored from the history that is given, by the same half step, so that a longer history
    or an unknown user needs no training; there ``decay`` weighs the seen items by age (see
    TextKNN). The paper's is "mean", and the default "validated" is not the paper's: where
    validation prefers it, newer items weigh more. The start of the items is one fixed draw: there
    is one solution for every seed.
    """

    seams: ClassVar[frozenset[str]] = frozenset()
    tasks: ClassVar[frozenset[str]] = frozenset({"collaborative", "sequential"})
    closed_form: ClassVar[bool] = True

    dim: int = 64
    alpha: float = 0.1  # weight of unseen pairs
    l2: float = 0.003
    power: float = 1.0
    iterations: int = 16
    decay: str = "validated"

    def build(self, data: TrainingData, seed: int) -> Any:
        from .als_net import ALSNet

        return ALSNet(
            n_items=data.n_items, dim=self.dim, alpha=self.alpha, l2=self.l2, power=self.power,
            iterations=self.iterations, decay=self.decay,
        )  # fmt: skip
